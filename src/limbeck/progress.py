"""Progress that a person can follow, as whole lines on stdout.

A stage prints `limbeck: STAGE: 1200/6000 completions, 5300 tok/s, 12 s left`. The same lines are
the log of a pod and what `limbeck run` shows of a stage that runs in a process of its own.
"""

import mmap
import threading
import time
from functools import cache

from limbeck.errors import one_line

PREFIX = "limbeck: "
INTERVAL_SECONDS = 2.0
PLACE_BYTES = 256


def say(text: str) -> None:
    """Print one line for people; nothing in it can steer their terminal."""
    print(f"{PREFIX}{one_line(text)}", flush=True)


def place() -> str:
    """How far this process, or the child that it forked, has come: `12/100 steps`; or nothing."""
    return _shared()[:].rstrip(b"\0").decode(errors="replace")


def mark(text: str) -> None:
    """Note how far the work has come."""
    _shared()[:] = text.encode()[:PLACE_BYTES].ljust(PLACE_BYTES, b"\0")


@cache
def _shared() -> mmap.mmap:
    """Memory that children which this process forks from now on share, and leave: see `tasks.attempts`."""
    return mmap.mmap(-1, PLACE_BYTES)


class Progress:
    """Counts one stage's work and prints a line at most every two seconds."""

    def __init__(self, stage: str, total: int, unit: str) -> None:
        """Start the clock.

        Args:
            stage: The name at the head of each line.
            total: How many units there are to do.
            unit: What is counted, in plural: `completions`, `steps`.
        """
        self.stage, self.total, self.unit = stage, total, unit
        self.done = 0
        self._start = self._shown = time.monotonic()
        self._first = 0

    def resume(self, done: int) -> None:
        """Say that an earlier attempt did this many already; they do not count for the rate."""
        self.done = self._first = done
        self._mark()
        if done:
            say(f"{self.stage}: {done}/{self.total} {self.unit} are there already, going on")

    def begin(self) -> None:
        """Start the clock anew: the start of an engine is no part of the rate."""
        self._start = self._shown = time.monotonic()

    @property
    def rate(self) -> float:
        """Units a second in this attempt."""
        return (self.done - self._first) / max(time.monotonic() - self._start, 1e-6)

    def add(self, count: int, detail: str = "") -> None:
        """Count finished units, and print a line if one is due."""
        self.done += count
        self._mark()
        now = time.monotonic()
        finished = self.done >= self.total
        if now - self._shown < INTERVAL_SECONDS and not finished:
            return
        self._shown = now
        rate = self.rate
        left = (self.total - self.done) / rate if rate else 0.0
        tail = f", {detail}" if detail else ""
        ends = "done" if finished else f"{left:.0f} s left"
        say(f"{self.stage}: {self.done}/{self.total} {self.unit}, {rate:,.1f}/s{tail}, {ends}")

    def _mark(self) -> None:
        if threading.current_thread() is threading.main_thread():  # not of an upload in the background
            mark(f"{self.done}/{self.total} {self.unit}")
