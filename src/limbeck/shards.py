"""Shards: how the parts of a stage's rows are shared out among tasks that work side by side.

    {work_uri}/{stage}/{key}/part-00003-....parquet          the same part, whoever makes it
    {work_uri}/{stage}/{key}/shards/1-of-4/manifest.json     what shard 1 of 4 made: written last of it
    {work_uri}/{stage}/{key}/shards/1-of-4/loose-....        its finished rows that are in no part yet
    {work_uri}/{stage}/{key}/manifest.json                   of the whole: see `limbeck.merging`

What a part holds follows from the stage's inputs and settings alone. A shard makes every Nth part, and the
prefix is that of the whole. So a run may go on with another number of shards: it finds by one listing what is
there, and the whole is the same, byte by byte.
"""

import re

from pydantic import BaseModel, ConfigDict, Field

SHARDS = "shards"
NUM_PARTS = 256
"""Rows are split into so many parts, if that makes them no smaller than the next: enough that shards have
about as many each."""
SMALLEST_PART = 200
"""Rows; smaller parts would cost more requests than they share out work."""
_FOLDER = re.compile(rf"/{SHARDS}/(\d{{1,5}})-of-(\d{{1,5}})$", re.ASCII)


class Shard(BaseModel):
    """One of several tasks that share a stage's parts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int = Field(default=0, ge=0)
    """From 0."""
    count: int = Field(default=1, ge=1)
    """How many there are."""

    def has(self, part: int) -> bool:
        """Whether this shard makes a part."""
        return part % self.count == self.index

    def place(self, uri: str) -> str:
        """Where its lease, its manifest and its loose rows lie, below a stage's prefix."""
        return uri if self.count == 1 else f"{uri}/{SHARDS}/{self.index}-of-{self.count}"

    def called(self, name: str) -> str:
        """What progress is headed with: `generate(teacher 2/4)`, `judge 2/4`."""
        if self.count == 1:
            return name
        which = f" {self.index + 1}/{self.count}"
        return f"{name[:-1]}{which})" if name.endswith(")") else f"{name}{which}"


WHOLE = Shard()
"""The one shard where work is not shared out."""


class Share(Shard):
    """What a shard's manifest tells of it."""

    num_parts: int = Field(ge=0)
    """How many parts all shards have together."""


def share(shard: Shard, num_parts: int) -> Share | None:
    """What the manifest of a shard tells; nothing of the whole."""
    return None if shard == WHOLE else Share(index=shard.index, count=shard.count, num_parts=num_parts)


def shard_of(folder: str) -> Shard | None:
    """The shard whose folder this is, by its address."""
    found = _FOLDER.search(folder)
    if found is None or not 0 <= int(found[1]) < int(found[2]):
        return None
    return Shard(index=int(found[1]), count=int(found[2]))


def rows_per_part(num_rows: int, at_most: int) -> int:
    """How many rows a part holds, the last one aside; the same for every number of shards.

    Args:
        num_rows: All rows of the stage.
        at_most: `generate.rows_per_part`.
    """
    return min(at_most, max(SMALLEST_PART, -(-num_rows // NUM_PARTS)))
