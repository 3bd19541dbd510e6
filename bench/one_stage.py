"""One stage in a process of its own, for `bench.growth`: arguments on stdin, figures on the last line.

Peak memory is VmHWM of this process: `ru_maxrss` would start from what the parent held when it forked.
"""

import json
import random
import sys
import time
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.made_rows import WORDS
from limbeck.config import Config
from limbeck.manifest import Manifest
from limbeck.sampling import Sample, SampleRequest
from limbeck.shards import WHOLE, Shard
from limbeck.storage import Store

NUM_TEXTS = 1000
TEXT_WORDS, NUM_TOKENS = 100, 100
AT_ONCE = 64
"""Requests that the sampler has at once, as an engine has."""


class Ready:
    """A sampler whose answers are ready: a `StreamingSampler` that costs next to nothing."""

    def __init__(self) -> None:
        """Make the answers, a tenth of which are right."""
        rng = random.Random(1)  # noqa: S311 - no secrets
        texts = (" ".join(rng.choices(WORDS, k=TEXT_WORDS)) for _ in range(NUM_TEXTS))
        self._samples = [
            Sample(f"{text} = {number % 10}", [1] * NUM_TOKENS, None, "stop")
            for number, text in enumerate(texts)
        ]

    def chat_prompt(self, user_message: str) -> list[int]:
        """A token for four characters."""
        return [1] * (len(user_message) // 4)

    def stream(self, requests: Iterable[tuple[int, SampleRequest]]) -> Iterator[tuple[int, Sample]]:
        """Answer some together, the newest first."""
        waiting: list[tuple[int, SampleRequest]] = []
        for numbered in requests:
            waiting.append(numbered)
            if len(waiting) == AT_ONCE:
                yield from self._answered(waiting)
        yield from self._answered(waiting)

    def restart(self) -> None:
        """Nothing dies here."""

    def close(self) -> None:
        """Nothing is held."""

    def _answered(self, waiting: list[tuple[int, SampleRequest]]) -> Iterator[tuple[int, Sample]]:
        while waiting:
            number, request = waiting.pop()
            yield number, self._samples[(request.seed or 0) % NUM_TEXTS]


def run(name: str, stage: ModuleType, given: dict[str, Any], **settings: Any) -> tuple[int, list[Manifest]]:
    """Run a stage and give the number of rows it read, and its outputs."""
    shard = Shard.model_validate(given.pop("shard")) if "shard" in given else WHOLE
    inputs = {key: _manifests(value) for key, value in given.items()}
    match name:
        case "merge":
            made = [stage.merged(inputs["shards"], settings["config"], settings["store"])]
        case "evaluate":
            ready = {"model_hash": "made", "open_sampler": Ready, "name": "student", "shard": shard}
            made = [stage.run(**inputs, **ready, **settings)]
        case "report":
            rows = ("completions", "judgements", "student_completions", "results")
            made = [stage.run(stage.ReportInputs(**inputs), **settings)]
            return sum(item.num_rows for key in rows for item in inputs[key]), made
        case _:
            made = list(stage.run(**inputs, **settings))
            return max(item.num_input_rows for item in made), made
    return made[0].num_rows, made


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
    name = asked["stage"]
    # No other stage is imported, so that the peak holds no other stage's imports.
    stage = import_module(f"limbeck.stages.{'evaluate' if name == 'merge' else name}")
    settings = {"config": Config(), "store": Store(), "work_uri": asked["work_uri"]}
    started, used = time.monotonic(), time.process_time()
    num_rows, made = run(name, stage, asked["given"], **settings)
    seconds, cpu_seconds = time.monotonic() - started, time.process_time() - used
    peak = Path("/proc/self/status").read_text(encoding="utf-8").split("VmHWM:")[1].split()[0]
    figures = {"rows": num_rows, "seconds": seconds, "cpu_seconds": cpu_seconds}
    print(json.dumps({**figures, "peak_mib": int(peak) / 1024, "made": [item.to_json() for item in made]}))


if __name__ == "__main__":
    main()
