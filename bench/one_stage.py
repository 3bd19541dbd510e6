"""One stage in a process of its own, for `bench.cpu_stages`: arguments on stdin, figures on the last line.

Peak memory is VmHWM of this process: `ru_maxrss` would start from what the parent held when it forked.
"""

import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from limbeck.config import Config
from limbeck.manifest import Manifest
from limbeck.storage import Store


def run(name: str, given: dict[str, Any], **settings: Any) -> tuple[int, list[Manifest]]:
    """Run a stage and give the number of rows it read, and its outputs.

    The stage is imported here, so that the peak holds no other stage's imports.
    """
    stage = import_module(f"limbeck.stages.{name}")
    inputs = {key: _manifests(value) for key, value in given.items()}
    if name != "report":
        made = list(stage.run(**inputs, **settings))
        return max(item.num_input_rows for item in made), made
    rows = ("completions", "judgements", "student_completions", "results")
    made = [stage.run(stage.ReportInputs(**inputs), **settings)]
    return sum(item.num_rows for key in rows for item in inputs[key]), made


def _manifests(value: Any) -> Any:
    """Manifests from JSON: one, some, or None; an address stays one."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return tuple(Manifest.model_validate(item) for item in value)
    return value and Manifest.model_validate(value)


def main() -> None:
    """Run the stage named in the arguments."""
    asked = json.load(sys.stdin)
    started = time.monotonic()
    settings = {"config": Config(), "store": Store(), "work_uri": asked["work_uri"]}
    num_rows, made = run(asked["stage"], asked["given"], **settings)
    seconds = time.monotonic() - started
    peak = Path("/proc/self/status").read_text(encoding="utf-8").split("VmHWM:")[1].split()[0]
    figures = {"rows": num_rows, "seconds": seconds, "cpu_seconds": time.process_time()}
    print(json.dumps({**figures, "peak_mib": int(peak) / 1024, "made": [item.to_json() for item in made]}))


if __name__ == "__main__":
    main()
