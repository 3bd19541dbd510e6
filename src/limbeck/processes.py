"""Child processes that never outlive the run that started them."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

PR_SET_PDEATHSIG = 1
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


def stop(process: subprocess.Popen[str], patience_seconds: float) -> None:
    """End a process that leads its own group, and the group: politely, then by force."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_seconds)
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
