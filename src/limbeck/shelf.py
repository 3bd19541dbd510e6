"""Finished rows on their way into the store, and what earlier attempts have left there.

    part-00003-....parquet       all rows of one stretch of the work, in order: an unbroken run and one that
                                 was killed ten times write the same bytes
    rejected-00003-....parquet   what was set aside of it, with the reason
    loose-00007-....parquet      finished rows of parts that are not whole yet, in any order; deleted when
                                 they are in a part. `loose-rejected-` likewise

Several shards may make the parts of one prefix side by side; where their loose parts lie, `limbeck.shards`
says. A shard takes over loose rows of its parts that another number of shards has left.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic

from limbeck.config import Config
from limbeck.lease import Held
from limbeck.records import RejectedRow
from limbeck.rows import PART_NAME, finished_parts, is_part, read_part, write_rows
from limbeck.shards import WHOLE, shard_of
from limbeck.spending import Tokens
from limbeck.storage import Store, StoredObject
from limbeck.work import Made, RowType, Task, Work


@dataclass
class _Part(Generic[RowType]):
    """A part on its way."""

    tasks: dict[str, Task[RowType]]
    """All its tasks by their keys, in order."""
    missing: set[str]
    """The keys of those that are not finished."""


class Shelf(Generic[RowType]):
    """Finished rows on their way into the store."""

    def __init__(self, work: Work[RowType], config: Config, store: Store, uri: str, held: Held) -> None:
        """Look up what earlier attempts left."""
        self._work: Work[RowType] = work
        self._store, self._uri, self._held = store, uri, held
        self._settings = config.generate
        self._objects: dict[str, StoredObject] = {}
        self._aside: dict[str, list[RejectedRow]] = {}  # the rows of each rejected part
        self._rows: dict[str, RowType] = {}  # finished, but in no part yet; by key
        self._rejected: dict[str, RejectedRow] = {}  # likewise
        self._loose: dict[str, set[str]] = {}  # the keys in each loose part that are in no part yet; by URI
        self._open: dict[int, _Part[RowType]] = {}
        self._unsaved: dict[str, None] = {}  # keys of finished rows that only this process has
        self._saved = time.monotonic()
        self._tokens = Tokens()  # of the rows in parts that this attempt has written

        self._folder = work.shard.place(uri)
        found = finished_parts(store, uri)
        loose = [item for name, item in found.items() if name.rpartition("/")[2].startswith("loose-")]
        mine = [part_number(item) for item in loose if item.uri.rpartition("/")[0] == self._folder]
        self._num_loose = 1 + max(mine, default=-1)
        whole = {_number(name) for name in found if name.startswith("part-")}
        self.whole = whole & work.sizes.keys()
        for item in loose:
            self._take_loose(item, whole)
        for name, item in found.items():
            if not name.startswith(("part-", "rejected-")) or _number(name) not in work.sizes:
                continue
            self._objects[name] = item
            if name.startswith("rejected-"):
                self._aside[name] = read_part(store, item, RejectedRow)
                if _number(name) not in self.whole:
                    self._rejected |= {row.where: row for row in self._aside[name]}
        self._earlier = [item for name, item in self._objects.items() if name.startswith("part-")]
        self.num_rows = sum(work.sizes[part] for part in self.whole) + len(self._rows)

    def _take_loose(self, item: StoredObject, whole: set[int]) -> None:
        """Take the rows of a loose part that are in no part yet."""
        work, folder = self._work, item.uri.rpartition("/")[0]
        left = shard_of(folder) or WHOLE
        if left.count == work.shard.count and left != work.shard:
            return  # a sibling's: none of its rows is in a part of this shard
        if "/loose-rejected-" in item.uri:
            aside = {row.where: row for row in read_part(self._store, item, RejectedRow)}
            self._rejected |= aside
            keys = set(aside)
        else:
            placed = [(work.place(row), row) for row in read_part(self._store, item, work.row_type)]
            rows = {key: row for (part, key), row in placed if part in work.sizes and part not in whole}
            self._rows |= rows
            keys = set(rows)
        # What another number of shards has left goes when all is merged: siblings may read it as well.
        if folder == self._folder or work.shard == WHOLE:
            self._loose[item.uri] = keys

    def open(self, part: int, tasks: Sequence[Task[RowType]]) -> set[str]:
        """Begin a part.

        Returns:
            The keys of the tasks that no earlier attempt has finished.
        """
        by_key = {task.key: task for task in tasks}
        missing = by_key.keys() - self._rows.keys() - self._rejected.keys()
        self._open[part] = _Part(by_key, set(missing))
        return missing

    def is_aside(self, key: str) -> bool:
        """Whether an earlier attempt set this task aside."""
        return key in self._rejected

    def add(self, part: int, key: str, row: RowType) -> None:
        """Take a finished row."""
        self._rows[key] = row
        self._unsaved[key] = None
        self._open[part].missing.remove(key)

    def set_aside(self, part: int, task: Task[RowType], reason: str) -> None:
        """Take a task that cannot be done."""
        self._rejected[task.key] = RejectedRow(where=task.key, row=task.text[:500], reason=reason)
        self._unsaved[task.key] = None
        self._open[part].missing.remove(task.key)

    def commit(self, *, now: bool = False) -> None:
        """Store the parts that are whole; and all other finished rows, if it is time for it, or `now`.

        Raises:
            LeaseError: when another attempt has taken the lease; nothing is stored then.
        """
        self._held.check()
        for number in [number for number, part in self._open.items() if not part.missing]:
            self._close(number, self._open.pop(number))
        late = time.monotonic() - self._saved >= self._settings.commit_seconds
        if self._unsaved and (now or late or len(self._unsaved) >= self._settings.rows_per_part):
            self._save()

    def made(self) -> Made:
        """Everything, when all parts are whole; loose parts are deleted.

        Parts of earlier attempts are read for their tokens alone, part by part.
        """
        self._held.check()
        self._store.delete(list(self._loose))
        self._loose.clear()
        for item in self._earlier:
            for row in read_part(self._store, item, self._work.row_type):
                self._tokens.add(row)
        self._earlier.clear()
        return Made(
            objects=in_order(self._objects.values()),
            rejected=tuple(row for name in sorted(self._aside, key=_number) for row in self._aside[name]),
            tokens=self._tokens,
        )

    def _close(self, number: int, part: _Part[RowType]) -> None:
        """Write a whole part; its name says that it is whole, so what was set aside of it goes first."""
        rows, aside = [], []
        for key, task in part.tasks.items():
            row = self._rows.pop(key, None)
            if key in self._rejected:
                aside.append(self._rejected.pop(key))
                row = task.spare
            if row is not None:
                rows.append(row)
            self._unsaved.pop(key, None)
        if aside:
            name = f"rejected-{number:05d}"
            self._aside[name] = aside
            self._objects[name] = write_rows(self._store, self._uri, aside, name=name)
        if rows:
            name = f"part-{number:05d}"
            self._objects[name] = write_rows(self._store, self._uri, rows, name=name)
            for row in rows:
                self._tokens.add(row)
        for keys in self._loose.values():
            keys.difference_update(part.tasks)
        empty = [uri for uri, keys in self._loose.items() if not keys]
        self._store.delete(empty)
        for uri in empty:
            del self._loose[uri]

    def _save(self) -> None:
        """Write finished rows of parts that are not whole."""
        rows = [self._rows[key] for key in self._unsaved if key in self._rows]
        aside = [self._rejected[key] for key in self._unsaved if key in self._rejected]
        if rows:
            name = f"loose-{self._num_loose:05d}"
            item = write_rows(self._store, self._folder, rows, name=name)
            self._loose[item.uri] = {self._work.place(row)[1] for row in rows}
        if aside:
            name = f"loose-rejected-{self._num_loose:05d}"
            item = write_rows(self._store, self._folder, aside, name=name)
            self._loose[item.uri] = {row.where for row in aside}
        self._num_loose += 1
        self._unsaved.clear()
        self._saved = time.monotonic()


def in_order(objects: Iterable[StoredObject]) -> tuple[StoredObject, ...]:
    """Parts, and then rows set aside, each by number."""
    return tuple(sorted(objects, key=lambda item: (not is_part(item), part_number(item))))


def part_number(item: StoredObject) -> int:
    """The number of the part that an object is, or was set aside of."""
    match = PART_NAME.search(item.uri)
    return _number(match["name"]) if match else -1


def _number(name: str) -> int:
    """The number in a part's name: 3 of `loose-rejected-00003`."""
    return int(name.rpartition("-")[2])
