"""A stage's work in a forked child: a crash is said and tried again in place, and SIGTERM reaches the work.

Forked, not spawned: the work is a closure over Kubeflow's artifacts. That is sound because nothing heavy is
imported and no client made before, so the child is the first to start threads.
"""

import os
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import FrameType
from typing import IO, NamedTuple, NoReturn, TypeVar, cast

from pydantic import BaseModel

from limbeck import processes
from limbeck.config import Config, parse_config
from limbeck.errors import ConfigError, EngineError, LimbeckError, StoppedError, one_line
from limbeck.manifest import Manifest
from limbeck.progress import mark, place, say
from limbeck.storage import NO_ROOM, disk_full
from limbeck.tasks.artifacts import Artifact, MetricsArtifact, Settings, task, write

Made = TypeVar("Made", bound=Manifest | None)
MAX_CAUSE = 600
MEMORY = Path("/dev/shm")  # noqa: S108 - a folder in it is made under a name of its own


class Outcome(BaseModel):
    """How an attempt ended. Written by the child, read by its parent."""

    done: bool = False
    """Whether the work came to its end."""
    manifest: Manifest | None = None
    """What it made; a node of a training that does not lead makes none."""
    exit_code: int = 1
    """Of the error, if it is one of Limbeck's."""
    message: str = ""
    """What went wrong, on one line."""
    crashed: bool = False
    """Whether another attempt may fare better."""


class Crash(NamedTuple):
    """Two alike have the same reason, so a third attempt is in vain."""

    place: str
    kind: str


def in_child(
    name: str,
    config: Settings,
    work: Callable[[Config], Manifest],
    made: Artifact,
    metrics: MetricsArtifact | None = None,
    *,
    variant: str = "",
) -> None:
    """Do a stage's work in a child process; its manifest goes into an artifact."""
    with task(name):
        checked = parse_config(config, variant)
        in_memory = checked.engine.checkpoint_in_memory and name in ("generate", "judge", "evaluate")
        write(run(name, lambda: work(checked), checked, in_memory=in_memory), made, metrics)


def run(name: str, work: Callable[[], Made], config: Config, *, in_memory: bool = False) -> Made:
    """Do a stage's work in a child process, again after a crash.

    A crash is a signal, an exception that is not Limbeck's, or an EngineError. SIGTERM is passed on; a second
    one ends everything at once.

    Args:
        name: What messages call the stage.
        work: Does it; nothing but its manifest comes back.
        config: `restarts` and `restart_seconds` are read.
        in_memory: Whether the child's temporary files lie in memory instead of on the disk.

    Raises:
        ConfigError: when this system has no files in memory.
        LimbeckError: what ended the work for good, with its exit code.
    """
    if in_memory and not MEMORY.is_dir():
        raise ConfigError(
            f"{name}: a system without {MEMORY}",
            where="config, field engine.checkpoint_in_memory",
            expected="Linux",
            got=sys.platform,
            remedy="Leave it false",
        )
    seen: set[Crash] = set()
    processes.adopt_orphans()
    with _sigterm() as stop:
        for restart in count():
            outcome = _attempt(work, stop, MEMORY if in_memory else None)
            if outcome.done:
                return cast("Made", outcome.manifest)
            if stop.count and outcome.crashed:
                raise StoppedError(
                    f"{name}: stopped by SIGTERM before it could save",
                    remedy="Run it again: it goes on with what is stored",
                )
            crash = Crash(place(), re.sub(r"0x[0-9a-f]+|\d+", "#", outcome.message))
            if not outcome.crashed or crash in seen or restart == config.restarts:
                raise _error(name, outcome, crash, restart, alike=crash in seen)
            seen.add(crash)
            wait = config.restart_seconds * 2**restart
            say(
                f"{name}: crashed {_at(crash)}: {outcome.message}; starts again in {wait:.0f} s "
                f"({restart + 1} of at most {config.restarts} restarts)"
            )
            time.sleep(wait)
    raise AssertionError  # count() has no end


class _Sigterm:
    """What comes of SIGTERM while a child works: it gets the first one, the second one kills it."""

    def __init__(self) -> None:
        self.child = self.count = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if not self.child or self.count > 1:
            raise StoppedError("stopped at once by SIGTERM", remedy="Run it again: it goes on")
        os.kill(self.child, signal.SIGTERM)


@contextmanager
def _sigterm() -> Iterator[_Sigterm]:
    """Take SIGTERM for a while."""
    stop = _Sigterm()
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def _attempt(work: Callable[[], Manifest | None], stop: _Sigterm, files: Path | None) -> Outcome:
    """Work once, and leave nothing behind: no process, no file."""
    mark("")
    sys.stdout.flush()
    sys.stderr.flush()
    others = processes.children()
    # A killed child leaves models and states behind, which would fill the disk.
    with (
        tempfile.TemporaryDirectory(prefix="limbeck-", dir=files, ignore_cleanup_errors=True) as scratch,
        _memory() as out,
    ):
        try:
            parent, child = os.getpid(), os.fork()
            if not child:
                _work(work, out, Path(scratch), parent)
            stop.child = child
            os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
            stop.child = 0
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        finally:
            processes.end_children(besides=others)
        out.seek(0)
        said = out.read()
    if status == 0:
        return Outcome.model_validate_json(said)
    if status == -signal.SIGTERM:
        stop.count += 1  # whether it came to this process as well or not
    return Outcome(message=_cause(status), crashed=True)


def _cause(status: int) -> str:
    """What a child died of that could not say it."""
    if status > 0:
        return f"exit code {status}"
    if status == -signal.SIGKILL:
        return "killed by SIGKILL (by the system, most often for want of memory)"
    known = -status in set(signal.Signals)
    return f"killed by {signal.Signals(-status).name}" if known else f"killed by signal {-status}"


def _work(work: Callable[[], Manifest | None], out: IO[str], scratch: Path, parent: int) -> NoReturn:
    """The child's life. It ends here: engines leave threads and exit handlers behind that hang or crash."""
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a stage that can save takes it itself
        processes.die_with(parent)
        os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)
        out.write(_outcome(work).model_dump_json())
        out.flush()
        code = 0
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _outcome(work: Callable[[], Manifest | None]) -> Outcome:
    """Work, and say how it ended."""
    try:
        return Outcome(done=True, manifest=work())
    except LimbeckError as error:
        return Outcome(exit_code=error.exit_code, message=str(error), crashed=isinstance(error, EngineError))
    except OSError as error:
        if error.errno in NO_ROOM:
            full = disk_full(error.filename or "a stage")
            return Outcome(exit_code=full.exit_code, message=str(full))
        return _crashed(error)
    except BaseException as error:  # noqa: BLE001 - the entry point: whatever it is, the parent says it
        return _crashed(error)


def _crashed(error: BaseException) -> Outcome:
    """The traceback goes to the log, its last line to the parent."""
    traceback.print_exception(error)
    message = one_line("".join(traceback.format_exception_only(error)))
    return Outcome(message=message[:MAX_CAUSE], crashed=True)


def _error(name: str, outcome: Outcome, crash: Crash, restart: int, *, alike: bool) -> LimbeckError:
    """What ends the stage for good."""
    if not outcome.crashed:
        error = LimbeckError(outcome.message)
    else:
        why = " again in the same way" if alike else f" after {restart} restarts" if restart else ""
        error = LimbeckError(
            f"{name}: crashed {_at(crash)}{why}: {outcome.message}",
            remedy="The log says more. Run it again: it goes on with what is stored",
        )
    error.exit_code = outcome.exit_code
    return error


def _at(crash: Crash) -> str:
    """Where it was."""
    return f"at {crash.place}" if crash.place else "before its first step"


@contextmanager
def _memory() -> Iterator[IO[str]]:
    """A file that needs no disk, which may be full, and that a child shares, where the system has such."""
    if sys.platform != "linux":
        with tempfile.TemporaryFile("w+") as file:
            yield file
        return
    with os.fdopen(os.memfd_create("outcome"), "w+") as file:
        yield file
