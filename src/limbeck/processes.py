"""Child processes that never outlive the run that started them."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
# Opened here: between fork and exec nothing may be loaded any more.
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def dies_with_parent(signal_number: signal.Signals) -> Callable[[], None]:
    """A `preexec_fn` after which the kernel sends the child a signal once its parent is gone.

    This covers a parent that was killed by SIGKILL; other systems than Linux go without.
    """

    def ask_the_kernel() -> None:
        if LIBC is not None:
            LIBC.prctl(PR_SET_PDEATHSIG, int(signal_number))

    return ask_the_kernel


def die_with(parent: int) -> None:
    """Ask the kernel, in a forked child, to kill it once its parent is gone."""
    dies_with_parent(signal.SIGKILL)()
    if os.getppid() != parent:  # it was gone before that
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of all that this process's children leave behind; only Linux can do that."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)


def rename(name: str) -> None:
    """Call this process something else in lists of processes: at most 15 characters; its forks too."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_NAME, name.encode())


def children() -> set[int]:
    """The processes whose parent this one is, ended ones too; none where /proc does not tell."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # gone by now
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if int(fields[1]) == os.getpid():
                found.add(int(stat.parent.name))
    return found


def wait_for_children(patience_seconds: float) -> None:
    """Wait until this process's children have ended, and after `adopt_orphans` their children as well."""
    deadline = time.monotonic() + patience_seconds
    while any(map(command_line, children())) and time.monotonic() < deadline:
        time.sleep(0.1)


def end_children(besides: set[int]) -> None:
    """Kill this process's children but some, and after `adopt_orphans` their children as well.

    An engine that a dead trainer has left behind would hold the memory of the GPU.
    """
    while left := children() - besides:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def stop(process: subprocess.Popen[str], patience_seconds: float) -> None:
    """End a process that leads its own group, and the group: politely, then by force."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_seconds)
    kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    """End a process that leads its own group, and the group, by force."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def command_line(pid: int) -> list[str]:
    """The arguments a process was started with; none when it is gone, a zombie, or cannot be seen."""
    try:
        text = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    return [part for part in text.split("\0") if part]
