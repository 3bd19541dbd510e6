"""Many tasks, each in a forked child of one process: what they share is imported once, not forty times.

python -m tests.refusals_process FILE     FILE holds [task, file of its arguments] pairs as JSON;
                                          [exit code, output] pairs come back on stdout
"""

import importlib
import json
import os
import runpy
import sys
from pathlib import Path

STAGES = sorted(path.stem for path in Path("src/limbeck/stages").glob("[a-z]*.py"))


def attempt(task: str, arguments: str) -> tuple[int, str]:
    """Run one task as `tests.stage_process` does."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writer, sys.stdout.fileno())
        os.dup2(writer, sys.stderr.fileno())
        sys.argv = ["", task, arguments]
        runpy.run_module("tests.stage_process", run_name="__main__")
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        output = pipe.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), output


if __name__ == "__main__":
    for name in ("tests.stage_process", *(f"limbeck.stages.{stage}" for stage in STAGES)):
        importlib.import_module(name)
    print(json.dumps([attempt(*pair) for pair in json.loads(Path(sys.argv[1]).read_text())]))
