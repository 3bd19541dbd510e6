"""How far the tasks that make a stage's rows have come, one a shard, by their leases: stragglers show."""

from collections.abc import Iterable
from concurrent.futures import Executor
from statistics import median
from typing import Literal

from pydantic import BaseModel, ConfigDict

from limbeck.errors import DataError
from limbeck.lease import Lease, last
from limbeck.shards import WHOLE, Shard, shard_of
from limbeck.storage import ObjectError, Store

STRAGGLES_BELOW = 0.5
"""A shard straggles when its share of done rows is below so much of the median of the others,"""
STRAGGLES_FROM = 0.1
"""once that median is at least so high: before, a late start looks the same."""


class ShardState(BaseModel):
    """One task of a stage that makes rows; the whole stage, where one task makes them all."""

    model_config = ConfigDict(frozen=True)

    index: int
    count: int
    state: Literal["complete", "at work", "stopped", "waiting"]
    """Stopped: its last attempt is over and has not finished. Waiting: it has not begun."""
    rows: int = 0
    """Done by all attempts, when the lease was renewed last."""
    expected: int | None = None
    """How many it makes; None as long as nobody has told."""
    rows_per_second: float = 0.0
    """Of the attempt at work."""
    straggles: bool = False
    """Whether it is far behind the others."""
    holder: str = ""
    """Who is at work."""


def shard_states(store: Store, leases: Iterable[str], pool: Executor) -> tuple[ShardState, ...]:
    """The shards of one unfinished output, of the number that was begun last.

    Args:
        store: Where they lie.
        leases: The folders of all its leases, the one written last first.
        pool: What asks the store for them.
    """
    shards = [(shard_of(folder) or WHOLE, folder) for folder in leases]
    if not shards:
        return ()
    count = shards[0][0].count
    mine = {shard.index: folder for shard, folder in shards if shard.count == count}
    found = dict(zip(mine, pool.map(lambda folder: _last(store, folder), mine.values()), strict=True))
    return _marked([_state(Shard(index=index, count=count), found.get(index)) for index in range(count)])


def _last(store: Store, folder: str) -> tuple[Lease, bool] | None:
    try:
        return last(store, folder)
    except (DataError, ObjectError):
        return None


def _state(shard: Shard, found: tuple[Lease, bool] | None) -> ShardState:
    """What a lease tells of its shard."""
    if found is None:
        return ShardState(index=shard.index, count=shard.count, state="waiting")
    lease, at_work = found
    done: Literal["complete", "at work", "stopped"] = "at work" if at_work else "stopped"
    if lease.state == "finished":
        done = "complete"
    return ShardState(
        index=shard.index,
        count=shard.count,
        state=done,
        rows=lease.rows_done,
        expected=lease.rows_total,
        rows_per_second=lease.rows_per_second if at_work else 0.0,
        holder=str(lease) if at_work else "",
    )


def _marked(shards: list[ShardState]) -> tuple[ShardState, ...]:
    """The same, with those marked that are far behind the median of the others."""
    shares = [_share(shard) for shard in shards]

    def straggles(index: int) -> bool:
        others = [share for other, share in enumerate(shares) if other != index and share is not None]
        mine = shares[index]
        if mine is None or not others or shards[index].state == "complete":
            return False
        middle = median(others)
        return middle >= STRAGGLES_FROM and mine < STRAGGLES_BELOW * middle

    return tuple(
        shard.model_copy(update={"straggles": straggles(index)}) for index, shard in enumerate(shards)
    )


def _share(shard: ShardState) -> float | None:
    """The share of rows done; None of one that has not begun, or makes none."""
    if shard.state == "waiting" or not shard.expected:
        return None
    return shard.rows / shard.expected
