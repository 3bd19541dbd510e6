"""Requests that each act of `generate` costs the object store, read from the code.

`tests/simulate/test_requests.py` counts them at the door of a real server and compares.
"""

import math
from collections import defaultdict
from functools import cache
from typing import Literal, NamedTuple

from limbeck.storage import CHUNK_BYTES

Place = Literal["results", "prompts", "model"]
"""Whose prefix is asked: the stage's own, the prompts', the model's."""
KEYS_A_PAGE = 1000
BIN_SECONDS = 10


class Requests(NamedTuple):
    """So many of each kind."""

    put: int = 0
    post: int = 0
    """A delete of many keys; begin and end of an upload in parts."""
    get: int = 0
    head: int = 0
    pages: int = 0
    """GETs that list keys."""

    @property
    def writes(self) -> int:
        """What S3 counts together."""
        return self.put + self.post

    @property
    def reads(self) -> int:
        """Likewise; pages may have a limit of their own, which is not published."""
        return self.get + self.head + self.pages


TAKE = Requests(get=1, put=1)
"""`lease._take` where nobody was before."""
LOOK = Requests(get=1, head=1)
"""`lease._take` at another's lease: who it is, and how old; once a second while it waits."""
TAKE_OVER = Requests(put=1)
RENEW = Requests(put=1)
REQUIRE = Requests(pages=1)
"""`manifest.require`: whether the prompts' parts are there."""
DELETE = Requests(post=1)
"""Up to a thousand loose parts in one request."""
COMMIT = Requests(put=2)
"""The manifest, and the lease given back. The renewal before is a RENEW."""


@cache
def upload(num_bytes: int) -> Requests:
    """`Store.write_file`: whether it is there; then one body, or an upload in parts."""
    num_chunks = math.ceil(num_bytes / CHUNK_BYTES)
    return Requests(head=1, put=1) if num_chunks <= 1 else Requests(head=1, put=num_chunks, post=2)


def download(num_bytes: int) -> Requests:
    """`Store.read_file`, in ranges."""
    return Requests(get=max(1, math.ceil(num_bytes / CHUNK_BYTES)))


def listing(num_objects: int) -> Requests:
    """`Store.sizes`, page by page."""
    return Requests(pages=max(1, math.ceil(num_objects / KEYS_A_PAGE)))


def find(num_shards: int) -> Requests:
    """`manifest.find_shard`: whether the stage is complete already, or the shard."""
    return Requests(head=1 if num_shards == 1 else 2)


def others(num_shards: int, num_objects: int) -> Requests:
    """`lease._end_others`: whether an attempt with another number of shards is at work.

    Args:
        num_shards: Of this run.
        num_objects: What lies in the shards' folders.
    """
    return listing(num_objects) if num_shards == 1 else listing(num_objects)._replace(get=1)


def merge(num_shards: int, of_shards: int, num_objects: int) -> Requests:
    """`merge`: it ends the leases of all shards, and lists everything twice.

    Args:
        num_shards: Of the run.
        of_shards: Objects in the shards' folders.
        num_objects: All that lies there.
    """
    found, deleted = find(1), math.ceil(num_shards / KEYS_A_PAGE)
    pages = listing(of_shards).pages + 2 * listing(num_objects).pages
    own = Requests(*map(sum, zip(found, TAKE, RENEW, COMMIT, strict=True)))
    return own._replace(get=own.get + num_shards, post=deleted, pages=pages)


def model(num_bytes: int) -> Requests:
    """`checkpoints.identity` and `checkpoints.fetch_base`; small files beside the weights are left out."""
    return download(num_bytes)._replace(pages=2)


class Traffic:
    """Requests over time."""

    def __init__(self) -> None:
        """Nothing has been asked."""
        self._log: defaultdict[tuple[Place, int, Requests], float] = defaultdict(float)

    def record(
        self, at: float, asked: Requests, place: Place = "results", seconds: float = 0.0, times: int = 1
    ) -> None:
        """Count requests that are sent at a time, or evenly over some seconds after it."""
        first = last = int(at / BIN_SECONDS)
        if seconds:
            last = int((at + seconds) / BIN_SECONDS)
        for number in range(first, last + 1):
            self._log[place, number, asked] += times / (last + 1 - first)

    def total(self, place: Place) -> Requests:
        """How many there were."""
        found = [(asked, times) for (where, _, asked), times in self._log.items() if where == place]
        return Requests(*(round(sum(asked[kind] * n for asked, n in found)) for kind in range(5)))

    def writes_per_second(self, place: Place) -> float:
        """The most, over ten seconds."""
        return self._peak(place, writes=True)

    def reads_per_second(self, place: Place) -> float:
        """The most, over ten seconds."""
        return self._peak(place, writes=False)

    def _peak(self, place: Place, *, writes: bool) -> float:
        bins: defaultdict[int, float] = defaultdict(float)
        for (where, number, asked), times in self._log.items():
            if where == place:
                bins[number] += times * (asked.writes if writes else asked.reads)
        return max(bins.values(), default=0.0) / BIN_SECONDS
