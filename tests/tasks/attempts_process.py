"""A stage's work that does what a test asks for, supervised, in a process of its own.

python -m tests.tasks.attempts_process FOLDER PLANS...     a plan an attempt; the last one stays

With LIMBECK_TEST_IN_MEMORY set, temporary files lie in memory; LIMBECK_TEST_RESTART_SECONDS is the
first wait.

Each attempt writes its process id to FOLDER/pid; a plan is `AT:WHAT`, the step at which it happens.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from limbeck.config import parse_config
from limbeck.errors import DataError, EngineError
from limbeck.manifest import Manifest
from limbeck.progress import Progress, say
from limbeck.tasks import attempts
from limbeck.tasks.artifacts import task

PARTS = 200_000
"""A manifest of this many digits fits into no pipe."""


def work(folder: Path, plans: list[str]) -> Manifest:
    """Three steps, and what the attempt's plan says."""
    number = int((folder / "attempts").read_text()) if (folder / "attempts").exists() else 0
    (folder / "attempts").write_text(str(number + 1))
    at, what = plans[min(number, len(plans) - 1)].split(":")
    progress = Progress("stage", 3, "steps")
    for step in range(4):
        upload = threading.Thread(target=lambda: Progress("upload", 9, "MB").add(1))
        upload.start()
        upload.join()
        if int(at) == step:
            happen(what, folder)
        if step < 3:
            progress.add(1)
    return Manifest(
        stage="test",
        kind="test",
        name="n" * PARTS,
        uri="s3://test/x",
        objects=(),
        inputs={},
        config_hash="",
        code_version="",
    )


def happen(what: str, folder: Path) -> None:
    """One thing that can go wrong."""
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "exit":
        os._exit(7)
    if what == "raise":
        raise ValueError(f"nobody thought of {os.getpid()}")
    if what == "raise otherwise":
        raise KeyError("otherwise")
    if what == "engine":
        raise EngineError("the engine broke", remedy="See the log")
    if what == "data":
        raise DataError("broken rows", where="s3://there")
    if what == "full":
        raise OSError(28, "No space left on device", "/data/file")
    if what == "leave":  # an engine of its own, in a session of its own, and files
        engine = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
        )
        (folder / "engine").write_text(str(engine.pid))
        (folder / "scratch").write_text(os.environ["TMPDIR"])
        (Path(os.environ["TMPDIR"]) / "model").write_text("weights")
        os.kill(os.getpid(), signal.SIGKILL)
    if what in ("wait", "save"):
        if what == "save":
            signal.signal(signal.SIGTERM, lambda *_: (folder / "saved").write_text("saved"))
        (folder / "pid").write_text(str(os.getpid()))
        while not (folder / "saved").exists() or (folder / "stay").exists():
            time.sleep(0.01)


if __name__ == "__main__":
    place, *given = sys.argv[1:]
    with task("stage"):
        made = attempts.run(
            "stage",
            lambda: work(Path(place), given),
            parse_config({"restart_seconds": float(os.environ.get("LIMBECK_TEST_RESTART_SECONDS", "0.01"))}),
            in_memory="LIMBECK_TEST_IN_MEMORY" in os.environ,
        )
        say(f"made {len(made.name)}")
