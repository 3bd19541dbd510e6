"""Progress of a transfer, told only when it takes long."""

import threading
import time

from limbeck.progress import Progress

QUIET_SECONDS = 5.0
MEGABYTE = 1_000_000


class Meter:
    """Counts bytes of one transfer, from any thread."""

    def __init__(self, name: str, num_bytes: int) -> None:
        """Start the clock.

        Args:
            name: What the lines begin with.
            num_bytes: How many there are to move.
        """
        self._progress = Progress(name, max(1, round(num_bytes / MEGABYTE)), "MB")
        self._lock = threading.Lock()
        self._speaks_at = time.monotonic() + QUIET_SECONDS
        self._bytes = 0

    def add(self, num_bytes: int) -> None:
        """Count bytes that have arrived, and print a line if one is due."""
        with self._lock:
            self._bytes += num_bytes
            if time.monotonic() >= self._speaks_at:
                self._progress.add(round(self._bytes / MEGABYTE) - self._progress.done)
