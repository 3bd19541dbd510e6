"""Progress of a transfer, told only when it takes long."""

import threading
import time

from limbeck.progress import Progress

QUIET_SECONDS = 5.0
MEGABYTE = 1_000_000


class Meter:
    """Counts bytes of one transfer, from any thread."""

    def __init__(self, name: str, num_bytes: int, quiet_seconds: float = QUIET_SECONDS) -> None:
        """Start the clock.

        Args:
            name: What the lines begin with.
            num_bytes: How many there are to move.
            quiet_seconds: Nothing is said of a transfer that takes no longer.
        """
        self._progress = Progress(name, max(1, round(num_bytes / MEGABYTE)), "MB")
        self._num_bytes = num_bytes
        self._lock = threading.Lock()
        self._speaks_at = time.monotonic() + quiet_seconds
        self._bytes = 0

    def add(self, num_bytes: int) -> None:
        """Count bytes that have arrived, and print a line if one is due."""
        with self._lock:
            self._bytes += num_bytes
            if time.monotonic() >= self._speaks_at and self._progress.done < self._progress.total:
                done = min(self._bytes // MEGABYTE, self._progress.total - 1)
                if self._bytes >= self._num_bytes:  # only the last byte ends it
                    done = self._progress.total
                self._progress.add(done - self._progress.done)
