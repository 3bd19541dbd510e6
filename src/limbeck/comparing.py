"""Whether two answers are the same, also where that takes algebra, which may take for ever.

Formulas come from models, and SymPy works out what it is given: `9^{9^{9^{9}}}` never ends and cannot be
interrupted. So a process of its own compares (`limbeck.compare_worker`), with a limit of its memory; it is
killed when a comparison takes too long, and the next comparison starts another one.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Self, cast

from limbeck import answers
from limbeck.config import TaskConfig
from limbeck.credentials import named_like_one
from limbeck.errors import EngineError

MAX_CHARS = 200
"""Longer formulas are the same only where their normal forms are."""
MAX_KNOWN = 100_000
"""Pairs whose comparison is remembered."""
MEMORY_BYTES = 1 << 30
"""What the process may have of address space; SymPy and its parser take about 80 MiB."""
START_SECONDS = 120.0
"""The process imports SymPy first: one to three seconds, on a busy disk more."""
TRIAL = "1"
"""Compared with a formula, it shows whether that hangs by itself."""


class Comparer:
    """Compares answers of one task; starts its process when the first pair needs algebra."""

    def __init__(self, task: TaskConfig, *, memory_bytes: int = MEMORY_BYTES) -> None:
        """Start nothing yet.

        Args:
            task: `kind` and `compare_seconds` are read.
            memory_bytes: Address space of the process.
        """
        self.num_slow = 0
        """Pairs that count as different because their comparison took too long, or killed the process."""
        self._task, self._memory_bytes = task, memory_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._known: dict[tuple[str, str], bool] = {}
        self._hanging: set[str] = set()

    def __enter__(self) -> Self:
        """Nothing is to be done."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._end()

    def same(self, left: str, right: str) -> bool:
        """Whether two answers in their normal forms are the same.

        Raises:
            EngineError: when the process that compares cannot be started.
        """
        return answers.same(left, right, self._task, self._algebra)

    @property
    def pid(self) -> int | None:
        """The process that is at work, if there is one."""
        return self._process.pid if self._process else None

    def _algebra(self, left: str, right: str) -> bool:
        """Ask the process, once for each pair."""
        if max(len(left), len(right)) > MAX_CHARS:
            return False
        pair = (left, right) if left < right else (right, left)
        if pair not in self._known:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[pair] = self._compared(pair)
        return self._known[pair]

    def _compared(self, pair: tuple[str, str]) -> bool:
        """Compare; a formula that hangs by itself is found, and not asked about again."""
        equal = None if self._hanging & set(pair) else self._ask(pair)
        if equal is not None:
            return equal
        self.num_slow += 1
        if not self._hanging & set(pair):
            self._hanging |= {formula for formula in pair if self._ask((formula, TRIAL)) is None}
        return False

    def _ask(self, pair: tuple[str, str]) -> bool | None:
        """The process's answer; None when there is none in time, and the process is ended then."""
        with self._ended_by_errors():
            process = self._process
            if process is None or process.poll() is not None:
                self._end()
                process = self._process = self._launch()
            try:
                _pipe(process.stdin).write(json.dumps(pair).encode() + b"\n")
            except BrokenPipeError:  # it died just now
                self._end()
                return None
            answer = _line(process, self._task.compare_seconds)
            if answer is None:
                self._end()
            return cast(bool | None, answer)

    def _launch(self) -> "subprocess.Popen[bytes]":
        """Start the process, without the credentials that this one has, and wait until it is ready."""
        process = self._process = subprocess.Popen(
            [sys.executable, "-m", "limbeck.compare_worker", str(os.getpid()), str(self._memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            process_group=0,  # Ctrl-C is this process's business
            env={key: value for key, value in os.environ.items() if not named_like_one(key)},
        )
        if _line(process, START_SECONDS) != "ready":
            raise EngineError(
                "the process that compares formulas does not start",
                where="task.kind math",
                expected=f"a word from it within {START_SECONDS:g} s",
                got=f"exit code {process.poll()}",
                remedy="See the log: is math-verify installed?",
            )
        return process

    @contextmanager
    def _ended_by_errors(self) -> Iterator[None]:
        """End the process when this one is interrupted: its late answer would be taken for the next one's."""
        try:
            yield
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        """Kill the process."""
        if self._process is None:
            return
        process, self._process = self._process, None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        _pipe(process.stdin).close()
        _pipe(process.stdout).close()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    """A pipe that is there, as it was asked for."""
    return cast(IO[bytes], pipe)


def _line(process: "subprocess.Popen[bytes]", seconds: float) -> Any:
    """The next value that a process writes; None when none comes in time, or it ends."""
    channel, data, deadline = _pipe(process.stdout).fileno(), b"", time.monotonic() + seconds
    while not data.endswith(b"\n"):
        if not select.select([channel], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return None
        more = os.read(channel, 1 << 12)
        if not more:
            return None
        data += more
    return json.loads(data)
