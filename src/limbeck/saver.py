"""Training states on their way to the object store while the training goes on; SIGTERM asks for one at once.

A trainer writes a state to the local disk between two steps; a thread uploads it and removes it there. At
most one state is being uploaded and one more waits; a newer one takes the place of the one that waits.
"""

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, Protocol, Self

from limbeck.errors import StoppedError, StorageError
from limbeck.progress import say

Upload = Callable[[int, Path], object]


class StateSaver(Protocol):
    """What a trainer asks when to save, and gives its states to: `Saver`, or one process of several."""

    def begin(self, step: int) -> None:
        """See `Saver.begin`."""

    def due(self) -> bool:
        """See `Saver.due`."""

    def save(self, step: int, folder: Path) -> None:
        """See `Saver.save`."""

    def interruptible(self, step: int, save: Callable[[], None]) -> AbstractContextManager[None]:
        """See `Saver.interruptible`."""


class Saver:
    """Decides when a training is saved, and uploads in the background; `with` ends with the last upload.

    Inside the block SIGTERM belongs to it. Before `begin` and inside `interruptible` it is raised there and
    then, as a StoppedError; else `due` is true from then on, and `save` ends the training. After the last
    step there is nothing to ask for any more: publishing the result goes on to its end.
    """

    def __init__(self, name: str, seconds: float, upload: Upload) -> None:
        """Nothing starts yet.

        Args:
            name: What messages call the training.
            seconds: Time between two states.
            upload: Stores a step's state from a folder; called in the background.
        """
        self._name, self._seconds, self._upload = name, seconds, upload
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="saver")
        self._uploads: list[tuple[Path, Future[StorageError | None]]] = []
        self._step = self._stored = 0  # of the newest state that was handed over, and that is in the store
        self._saved = time.monotonic()
        self._due: float | None = None  # when the newest state began to be written, where that is known
        self._asked = False
        self._interruptible = True

    @property
    def asked(self) -> bool:
        """Whether SIGTERM has come."""
        return self._asked

    def __enter__(self) -> Self:
        """Take SIGTERM."""
        self._before = signal.signal(signal.SIGTERM, self._on_sigterm)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        """Wait for the last upload, whatever has happened: it may be what the next attempt needs."""
        if kind is None:
            self._make_room()
        self._pool.shutdown(wait=True)
        signal.signal(signal.SIGTERM, self._before)
        if kind is None:
            self._look()

    def begin(self, step: int) -> None:
        """Start the clock: the training begins after so many steps."""
        self._step = self._stored = step
        self._saved = time.monotonic()
        self._interruptible = False

    def due(self) -> bool:
        """Whether to save between these two steps: it is time, or SIGTERM has come.

        If so, a state that still waits for its upload makes room on the disk.

        Raises:
            LimbeckError: when an upload met something worse than a store that fails.
        """
        self._look()
        if not self._asked and time.monotonic() - self._saved < self._seconds:
            return False
        self._make_room()
        return True

    def idle(self) -> bool:
        """Whether a state that were saved now would be uploaded at once.

        Raises:
            LimbeckError: when an upload met something worse than a store that fails.
        """
        self._look()
        return not self._uploads

    def save(self, step: int, folder: Path) -> None:
        """Take over a state that lies in a folder, which is removed after its upload.

        Raises:
            StoppedError: after SIGTERM, when the state is stored.
            StorageError: after SIGTERM, when it could not be stored.
        """
        self.take(step, folder)
        if self._asked:
            self.stop()

    def take(self, step: int, folder: Path) -> None:
        """Like `save`, but the training goes on even after SIGTERM: a newer state is to come."""
        self._step, self._saved = step, time.monotonic()
        written = f"written in {self._saved - self._due:.1f} s, " if self._due else ""
        self._uploads.append((folder, self._pool.submit(self._send, step, folder, written)))

    @contextmanager
    def interruptible(self, step: int, save: Callable[[], None]) -> Iterator[None]:
        """Break the block off when SIGTERM comes: it changes nothing of the state after `step` steps.

        Args:
            step: How many are done.
            save: Writes that state and calls `Saver.save`.

        Raises:
            StoppedError: after SIGTERM, when the state is stored.
            StorageError: after SIGTERM, when it could not be stored.
        """
        try:
            self._interruptible = True
            if self._asked:
                self._raise()
            yield
        except StoppedError:
            if step == self._step:
                self._failure()
            if step > self._stored:
                self._make_room()
                save()
            self.stop()
        finally:
            self._interruptible = False

    def _make_room(self) -> None:
        """Give up the state that waits; forgotten at once, or it would be given up again."""
        self._due = time.monotonic()
        waiting = [item for item in self._uploads if item[1].cancel()]
        self._uploads = [item for item in self._uploads if item not in waiting]
        for folder, _ in waiting:
            shutil.rmtree(folder)

    def _look(self) -> None:
        """Forget what is uploaded; what `_send` did not expect ends the training."""
        done = [item for item in self._uploads if item[1].done()]  # once: others may end meanwhile
        self._uploads = [item for item in self._uploads if item not in done]
        for _, upload in done:
            upload.result()

    def _send(self, step: int, folder: Path, written: str) -> StorageError | None:
        """Upload one state; a failure is said, and the training goes on."""
        started = time.monotonic()
        try:
            self._upload(step, folder)
        except StorageError as error:
            say(f"{self._name}: the state of step {step} is not stored: {error}")
            return error
        finally:
            shutil.rmtree(folder)
        self._stored = step
        upload_seconds = time.monotonic() - started
        say(f"{self._name}: the state of step {step} is stored: {written}uploaded in {upload_seconds:.1f} s")
        return None

    def stop(self) -> NoReturn:
        """End the training once all its states have been uploaded.

        Raises:
            StoppedError: when the last one is stored.
            StorageError: when it could not be stored.
        """
        if failure := self._failure():
            raise failure
        kept = f"the state of step {self._stored} is stored" if self._stored else "no step was finished yet"
        raise StoppedError(
            f"{self._name}: stopped by SIGTERM; {kept}", remedy="Run it again: it goes on from there"
        )

    def _failure(self) -> StorageError | None:
        """Wait for all uploads; what became of the last one."""
        ended = [upload.result() for _, upload in self._uploads]
        return ended[-1] if ended else None

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        if self._interruptible:
            self._raise()

    def _raise(self) -> None:
        self._interruptible = False  # a second signal must not break off what the first one has begun
        raise StoppedError(
            f"{self._name}: stopped by SIGTERM; there is nothing new to save",
            remedy="Run it again: it goes on with what is stored",
        )
