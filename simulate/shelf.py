"""Finished rows of one shard on their way into the store: `limbeck.shelf`, in numbers.

Rows finish in their order here. In an engine they do so nearly: one part and the sequences in flight are
open at once.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple


class Loose(NamedTuple):
    """A loose part: rows of a part that was not whole when they were stored."""

    first: int
    end: int


@dataclass
class Shelf:
    """What there is of a shard: all attempts together."""

    num_rows: int
    rows_per_part: int
    finished: int = 0
    """Rows that are sampled and not lost."""
    stored: int = 0
    """Of these, the ones in the store."""
    num_parts: int = 0
    loose: list[Loose] = field(default_factory=list)

    @property
    def boundary(self) -> int:
        """So many rows are finished when the next part is whole."""
        return min((self.num_parts + 1) * self.rows_per_part, self.num_rows)

    def close(self) -> tuple[int, int]:
        """Write the next part, which is whole.

        Returns:
            Rows in it, and loose parts that are deleted.
        """
        first, end = self.num_parts * self.rows_per_part, self.boundary
        self.finished = self.stored = end
        self.num_parts += 1
        kept = [item for item in self.loose if item.end > end]
        num_deleted = len(self.loose) - len(kept)
        self.loose = kept
        return end - first, num_deleted

    def save(self, finished: int) -> int:
        """Write a loose part of all finished rows that are in no part yet.

        Returns:
            Rows in it.
        """
        self.loose.append(Loose(self.stored, finished))
        num_saved = finished - self.stored
        self.finished = self.stored = finished
        return num_saved

    def lose(self, finished: int) -> int:
        """The process is killed.

        Returns:
            Rows that were finished and are in the store no more than before.
        """
        lost = max(0, finished - self.stored)
        self.finished = self.stored
        return lost

    @property
    def is_whole(self) -> bool:
        """Whether all parts are there."""
        return self.stored == self.num_rows


def first_row_at(seconds: float, rows_per_second: float) -> int:
    """The number of the first row, from 1, that finishes at a time or after it."""
    return max(1, math.ceil(seconds * rows_per_second - 1e-9))
