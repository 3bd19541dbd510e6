"""When a training of several processes is saved: all decide alike, and the node's own process does the rest.

`limbeck.torchrun` takes a finished state out of the outbox and uploads it.
"""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from limbeck.errors import EngineError, StoppedError
from limbeck.jobs import BEGUN, OUTBOX, PIDS, PLACE
from limbeck.progress import place
from limbeck.trainer import ranks


class RankSaver:
    """`limbeck.saver.Saver` for one of several processes; all call each method at the same time.

    Inside the block SIGTERM belongs to it. Whoever gets it, all save together and end.
    """

    def __init__(self, name: str, seconds: float, folder: Path) -> None:
        """Nothing starts yet.

        Args:
            name: What messages call the training.
            seconds: Time between two states.
            folder: Of the job's files.
        """
        self._name, self._seconds, self._folder = name, seconds, folder
        self._step = 0
        self._saved = time.monotonic()
        self._asked = False
        self._interruptible = True

    def __enter__(self) -> Self:
        """Take SIGTERM, and say who does."""
        self._before = signal.signal(signal.SIGTERM, self._on_sigterm)
        self._write(f"{PIDS}/{os.environ.get('RANK', '0')}", str(os.getpid()))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        """Give SIGTERM back."""
        signal.signal(signal.SIGTERM, self._before)

    def begin(self, step: int) -> None:
        """Start the clock: the training begins after so many steps.

        Raises:
            EngineError: when not all begin at the same step.
        """
        steps = set(ranks.gather([step]))
        if len(steps) > 1:
            raise EngineError(
                f"{self._name}: the nodes begin at different steps",
                expected="one and the same training state",
                got=", ".join(map(str, sorted(steps))),
                remedy="Another was stored between two reads: start the training again",
            )
        self._step, self._saved = step, time.monotonic()
        self._interruptible = False
        if ranks.first_on_node():
            self._write(BEGUN, str(step))

    def due(self) -> bool:
        """Whether to save between these two steps: it is time, or SIGTERM has come to any of them.

        If so, a state that still waits in the outbox makes room on the disk.
        """
        if ranks.first_on_node():
            self._write(PLACE, place())
        late = ranks.leads() and time.monotonic() - self._saved >= self._seconds
        if not ranks.any_of(self._asked or late):
            return False
        if ranks.first_on_node():
            for waiting in (self._folder / OUTBOX).iterdir():
                given_up = self._folder / f"given-up-{waiting.name}"
                with suppress(FileNotFoundError):  # the node has just taken it
                    waiting.rename(given_up)
                    shutil.rmtree(given_up)
        return True

    def save(self, step: int, folder: Path) -> None:
        """Hand over a state that lies in a folder, once all have written their part.

        Raises:
            StoppedError: after SIGTERM.
        """
        stop = ranks.any_of(self._asked)
        self._step, self._saved = step, time.monotonic()
        if ranks.leads():
            folder.rename(self._folder / OUTBOX / f"{step:08d}")
        elif ranks.first_on_node():  # of another node
            shutil.rmtree(folder)
        if stop:
            self._stop()

    @contextmanager
    def interruptible(self, step: int, save: Callable[[], None]) -> Iterator[None]:
        """Break the block off when SIGTERM comes: it changes nothing of the state after `step` steps.

        In it no process may wait for another one: at its end they ask each other whether all came through.

        Args:
            step: How many are done.
            save: Writes that state and calls `save`.

        Raises:
            StoppedError: after SIGTERM to any of them.
        """
        stopped = False
        try:
            self._interruptible = True
            if self._asked:
                self._raise()
            yield
            self._interruptible = False
        except StoppedError:
            stopped = True
        finally:
            self._interruptible = False
        if ranks.any_of(stopped):
            self._asked = True
            if step > self._step:
                save()
            self._stop()

    def _write(self, name: str, text: str) -> None:
        """Write a file that the node reads, in one go."""
        new = self._folder / f"{name}.new"
        new.write_text(text)
        new.rename(self._folder / name)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        if self._interruptible:
            self._raise()

    def _raise(self) -> None:
        self._interruptible = False  # a second signal must not break off what the first one has begun
        self._stop()

    def _stop(self) -> None:
        raise StoppedError(f"{self._name}: stopped by SIGTERM")
