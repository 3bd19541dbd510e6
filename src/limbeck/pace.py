"""A rate that many threads keep together: so many requests and so many tokens a minute, evenly spread."""

import threading
import time
from collections.abc import Callable


class Pace:
    """Gives each request its turn; the first one has it at once, and none are saved up."""

    def __init__(
        self,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set the limits; None is no limit."""
        self._request_seconds = 60 / requests_per_minute if requests_per_minute else 0.0
        self._token_seconds = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock = clock
        self._lock = threading.Lock()
        self._next_by_requests = self._next_by_tokens = clock()

    def take(self, tokens: int) -> float:
        """Take the next turn.

        Args:
            tokens: How many it may use at most; `give_back` returns those that it did not.

        Returns:
            Seconds until it comes.
        """
        with self._lock:
            now = self._clock()
            turn = max(now, self._next_by_requests, self._next_by_tokens)
            self._next_by_requests = turn + self._request_seconds
            self._next_by_tokens = turn + tokens * self._token_seconds
            return turn - now

    def give_back(self, tokens: int) -> None:
        """Return tokens that were not used; below 0, take those that were used on top."""
        with self._lock:
            self._next_by_tokens -= tokens * self._token_seconds

    def hold(self, seconds: float) -> None:
        """Let no turn come for a while: the server has asked for it."""
        with self._lock:
            self._next_by_requests = max(self._next_by_requests, self._clock() + seconds)
