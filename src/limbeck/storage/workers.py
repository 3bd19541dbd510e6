"""Threads that move many files, and the parts of large ones, with bounded memory."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

PART_BYTES = 8 << 20
"""Larger files go in parts."""
MAX_PARTS = 10_000
"""More than S3 takes of one object."""
NUM_FILES, NUM_PARTS = 16, 8
"""Threads of each kind. Many small files need files; one large file needs parts."""
MEMORY_BYTES = 160 << 20
"""What parts may hold at once, being moved or waiting for their turn to be hashed."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Part(NamedTuple):
    """A range of a file."""

    number: int
    """From 1 on, as S3 counts."""
    first: int
    num_bytes: int


def parts_of(num_bytes: int) -> list[Part]:
    """The parts of a file: of 8 MiB, or larger where there would be too many."""
    size = max(PART_BYTES, -(-num_bytes // MAX_PARTS))
    starts = range(0, num_bytes, size)
    return [Part(number, first, min(size, num_bytes - first)) for number, first in enumerate(starts, start=1)]


class Workers:
    """Two sets of threads, because a file waits for its parts."""

    def __init__(self) -> None:
        """Start none yet: threads start with their work."""
        self.stop = threading.Event()
        """Set when one has failed: no other need wait any more."""
        self._files = ThreadPoolExecutor(NUM_FILES, "limbeck-file")
        self._parts = ThreadPoolExecutor(NUM_PARTS, "limbeck-part")
        self._room = threading.BoundedSemaphore(MEMORY_BYTES // PART_BYTES)

    def __enter__(self) -> Self:
        """Give the workers."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until all threads have ended; what has not begun does not begin any more."""
        if error:
            self.stop.set()
        self._files.shutdown(cancel_futures=True)
        self._parts.shutdown(cancel_futures=True)

    def each(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Do something with each file; the first failure ends all."""
        futures = [self._files.submit(work, item) for item in items]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            self.stop.set()
            for future in futures:
                future.cancel()
            raise
        return [future.result() for future in futures]

    def in_order(self, work: Callable[[Part], Result], parts: Iterable[Part]) -> Iterator[Result]:
        """Do something with each part of one file, several at once; give the results in order.

        A result that is not taken holds its room, so that a slow part does not make memory grow.
        """
        waiting: deque[Future[Result]] = deque()
        try:
            for part in parts:
                while not self._room.acquire(blocking=not waiting):
                    yield waiting[0].result()
                    self._forget(waiting)
                waiting.append(self._parts.submit(work, part))
            while waiting:
                yield waiting[0].result()
                self._forget(waiting)
        finally:
            while waiting:
                waiting[0].cancel()
                self._forget(waiting)

    def _forget(self, waiting: deque[Future[Result]]) -> None:
        waiting.popleft()
        self._room.release()
