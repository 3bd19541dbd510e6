"""One component's body in a fork of the tests' own process: what a test can kill, without imports of its own.

As `tests.stage_process`, for tests that start trainings again and again: what the test has imported is there
already. The test's process must not have trained or opened an engine itself, since threads end with a fork.
"""

import os
import signal
import sys
import traceback
import uuid
from pathlib import Path
from typing import Any

from limbeck import processes
from tests.stage_process import run


class Task:
    """A running task, with what is used here of `subprocess.Popen`."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._log = log

    def poll(self) -> int | None:
        """The exit code, a signal's below 0; None while it runs."""
        self._wait(os.WNOHANG)
        return self.returncode

    def communicate(self) -> tuple[str, None]:
        """Wait for the end; gives what it has said."""
        self._wait(0)
        return self._log.read_text(), None

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def _wait(self, options: int) -> None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None


def start(task: str, folder: Path, **arguments: Any) -> Task:
    """Start a task; its output comes by `communicate()`."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{task}-{uuid.uuid4().hex}.log"
    sys.stdout.flush()
    parent, pid = os.getpid(), os.fork()
    if not pid:
        _live(parent, log, task, arguments)
    return Task(pid, log)


def finish(task: str, folder: Path, **arguments: Any) -> str:
    """Run a task to its end and give its output; a failure fails the test with it."""
    process = start(task, folder, **arguments)
    output, _ = process.communicate()
    assert process.returncode == 0, output[-5000:]
    return output


def _live(parent: int, log: Path, task: str, arguments: dict[str, Any]) -> None:
    """The child's life, which ends here."""
    code: Any = 1
    try:
        processes.die_with(parent)
        with log.open("w", buffering=1) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            sys.stdout = sys.stderr = file
            try:
                run(task, arguments)
                code = 0
            except SystemExit as error:
                code = error.code
            except BaseException:  # noqa: BLE001 - the end of the child
                traceback.print_exc()
    finally:
        os._exit(code if isinstance(code, int) else 1)
