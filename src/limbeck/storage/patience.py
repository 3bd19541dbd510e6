"""How long a request is tried: with pauses that grow and vary, up to a deadline, where that may help."""

import os
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from botocore.exceptions import ClientError

from limbeck.errors import ConfigError, StorageError
from limbeck.storage.failures import ASKED_AGAIN, DAMAGED_TRIES, explained, is_damage, may_pass

Result = TypeVar("Result")

DEADLINE = "LIMBECK_STORAGE_DEADLINE_SECONDS"
DEADLINE_SECONDS = 120.0
"""An outage of half a minute, and a server that restarts, pass within it."""
FIRST_SECONDS = 10.0
"""Before the first answer: then a wrong address is likelier than an outage."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 5.0


class Patience:
    """The deadline of each request of one client, with all of its retries."""

    def __init__(self, deadline_seconds: float | None = None) -> None:
        """Take the deadline from here, else from LIMBECK_STORAGE_DEADLINE_SECONDS, else two minutes.

        Args:
            deadline_seconds: Holds for the first contact too; without one that ends after ten seconds.

        Raises:
            ConfigError: when the variable is no number of seconds.
        """
        given = _from_environment() if deadline_seconds is None else deadline_seconds
        self.seconds = DEADLINE_SECONDS if given is None else given
        self._first_seconds = FIRST_SECONDS if given is None else given
        self._answered = False

    def ask(
        self, request: Callable[[], Result], uri: str, server: str, stop: threading.Event | None = None
    ) -> Result:
        """The result of a request, which is sent again while that may help and time is left.

        Args:
            request: Sends it once.
            uri: What it is about.
            server: The endpoint, without a password.
            stop: Ends the waiting, and lets nothing new begin, because another request has failed for good.

        Raises:
            StorageError: one line that says what failed, where, and how long it was tried.
        """
        tries = _Tries()
        stop = stop or threading.Event()
        with explained(uri, server, tries.said):
            while True:
                if stop.is_set():
                    raise StorageError("given up because another transfer failed", where=uri)
                tries.count += 1
                try:
                    result = request()
                except ASKED_AGAIN as error:
                    self._answered |= isinstance(error, ClientError)
                    tries.damaged += is_damage(error)
                    may_help = may_pass(error) or (is_damage(error) and tries.damaged < DAMAGED_TRIES)
                    pause = _pause(tries.count)
                    limit = self.seconds if self._answered else self._first_seconds
                    if not may_help or tries.seconds() + pause > limit or stop.wait(pause):
                        raise
                else:
                    self._answered = True
                    return result


class _Tries:
    """What has been tried for one request."""

    def __init__(self) -> None:
        self.count = self.damaged = 0
        self._start = time.monotonic()

    def seconds(self) -> float:
        return time.monotonic() - self._start

    def said(self) -> str:
        return f" after {self.count} tries in {self.seconds():.0f} s" if self.count > 1 else ""


def _from_environment() -> float | None:
    said = os.environ.get(DEADLINE, "")
    try:
        seconds = float(said or 0)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ConfigError(f"{DEADLINE} is no number of seconds", expected="such as 120", got=said)
    return seconds if said else None


def _pause(tries: int) -> float:
    """Seconds before the next try: they double, and vary so that many clients do not come at once."""
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**tries)
    return random.uniform(longest / 2, longest)  # noqa: S311 - no secrets
