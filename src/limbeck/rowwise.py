"""The loop of the stages that ask a model for rows: ask, store, go on after a kill with what is missing.

    part-00003-....parquet       all rows of one stretch of the work, in order: an unbroken run and one that
                                 was killed ten times write the same bytes
    rejected-00003-....parquet   what was set aside of it, with the reason
    loose-00007-....parquet      finished rows of parts that are not whole yet, in any order; deleted when
                                 they are in a part. `loose-rejected-` likewise

Several shards may make the parts of one prefix side by side; where their loose parts lie, `limbeck.shards`
says. A shard takes over loose rows of its parts that another number of shards has left.

A task has a key. Within a stage's prefix, which hashes model, template and settings, the key stands for
(prompt, temperature, sample index, seed, model revision, template), so a row that is there is never
asked for again.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from limbeck.config import Config
from limbeck.errors import EndpointError, EngineError
from limbeck.lease import Held
from limbeck.progress import Progress
from limbeck.records import Completion, EvalResult, Judgement, RejectedRow
from limbeck.rows import PART_NAME, finished_parts, is_part, read_part, write_rows
from limbeck.sampling import (
    ChatPrompt,
    OpenSampler,
    RefusedError,
    Sample,
    SampleRequest,
    StreamingSampler,
)
from limbeck.shards import WHOLE, Shard, shard_of
from limbeck.spending import Tokens
from limbeck.steady import answers, unless_all_refused
from limbeck.storage import Store, StoredObject

RowType = TypeVar("RowType", Completion, Judgement, EvalResult)
"""What models are asked for; each of these rows knows its tokens."""
ToPrompt = Callable[[str], ChatPrompt]


@dataclass(frozen=True)
class Question(Generic[RowType]):
    """What the model is asked for one row, once or several times, and how its answers become the row."""

    requests: Sequence[SampleRequest]
    row: Callable[[Sequence[Sample]], RowType]
    """From the answers, in the order of the requests."""


@dataclass(frozen=True)
class Task(Generic[RowType]):
    """One row to make."""

    key: str
    """`completion 1f9c04aa52b7c3d8`: what `Work.place` finds in its row; `where` of a row set aside."""
    question: Question[RowType] | str
    """Or why nothing can be asked: the task is set aside."""
    text: str
    """What is shown of it when it is set aside."""
    spare: RowType | None = None
    """The row that stands in when it is set aside."""
    num_rows: int = 1
    """How many rows it stands for: a prompt that is too long, for all its samples."""


@dataclass(frozen=True)
class Work(Generic[RowType]):
    """The rows that a stage makes, or one shard of it, in stretches of one part each."""

    name: str
    """What progress is headed with: `generate(teacher)`."""
    unit: str
    """What is counted, in plural."""
    row_type: type[RowType]
    sizes: Mapping[int, int]
    """How many rows each part stands for, set aside or not; by the number of the part, in order."""
    plan: Callable[[int, ToPrompt], list[Task[RowType]]]
    """The tasks of a part, in the order of its rows; the same at each attempt."""
    place: Callable[[RowType], tuple[int, str]]
    """The number of the part that a row belongs to, any other number if it is another shard's; and the key
    of its task."""
    shard: Shard = WHOLE
    """Which one."""


@dataclass
class _Asked(Generic[RowType]):
    """A task whose answers are on their way; they come in any order."""

    part: int
    task: Task[RowType]
    question: Question[RowType]
    samples: dict[int, Sample] = field(default_factory=dict)
    """By the place of the request."""
    aside: bool = False


@dataclass(frozen=True)
class Made:
    """What there is of a stage's rows when all are made."""

    objects: tuple[StoredObject, ...]
    """Parts, and then rows set aside, each in order."""
    rejected: tuple[RejectedRow, ...]
    """Of all attempts, in order."""
    tokens: Tokens
    """Of the rows, whichever attempt made them."""

    @property
    def num_rows(self) -> int:
        """Rows in the parts."""
        return sum(item.rows for item in self.objects if is_part(item))

    @property
    def reasons(self) -> dict[str, int]:
        """How many were set aside, by reason."""
        return reasons(self.rejected)


def reasons(rejected: Sequence[RejectedRow]) -> dict[str, int]:
    """How many rows were set aside, by reason; one that two parts set aside counts once."""
    by_key = {row.where: row.reason.split(":")[0] for row in rejected}
    return dict(Counter(by_key.values()))


def make_rows(
    work: Work[RowType], open_sampler: OpenSampler, config: Config, store: Store, uri: str, held: Held
) -> Made:
    """Make all rows of a stage under its prefix, or those that are missing.

    Args:
        work: What is to be made.
        open_sampler: Loads the model; called only when something is missing.
        config: `generate.rows_per_part`, `generate.commit_seconds` and `engine.max_restarts` are read.
        store: Where rows go.
        uri: The stage's prefix.
        held: The lease of the prefix, or of the shard.

    Raises:
        LeaseError: when another attempt has taken the lease.
        EngineError: when the engine cannot be kept alive. Finished rows are kept.
        EndpointError: when a server is away for too long, or refuses. Finished rows are kept.
    """
    shelf = _Shelf(work, config, store, uri, held)
    progress = Progress(work.name, sum(work.sizes.values()), work.unit)
    progress.resume(shelf.num_rows)
    held.tell(progress.done, progress.total, 0.0)
    missing = [number for number in work.sizes if number not in shelf.whole]
    if missing:
        with closing(open_sampler()) as sampler:
            _make(work, missing, sampler, config, shelf, progress, held)
    return shelf.made()


def _make(
    work: Work[RowType],
    missing: Sequence[int],
    sampler: StreamingSampler,
    config: Config,
    shelf: "_Shelf[RowType]",
    progress: Progress,
    held: Held,
) -> None:
    """Make the missing parts."""
    asked: dict[int, tuple[_Asked[RowType], int]] = {}  # by request, and not answered

    def requests() -> Iterator[tuple[int, SampleRequest]]:
        count = 0
        for part in missing:
            tasks = work.plan(part, sampler.chat_prompt)
            open_keys = shelf.open(part, tasks)
            progress.add(sum(task.num_rows for task in tasks if shelf.is_aside(task.key)))
            for task in tasks:
                if task.key not in open_keys:
                    continue
                open_keys.remove(task.key)  # prompts of others may repeat: a key is asked for once
                question = task.question
                if isinstance(question, str):
                    shelf.set_aside(part, task, question)
                    progress.add(task.num_rows)
                else:
                    whole = _Asked(part, task, question)
                    for place, request in enumerate(question.requests):
                        asked[count] = whole, place
                        yield count, request
                        count += 1
            shelf.commit()

    started, tokens = time.monotonic(), 0
    limit, proven = config.engine.max_restarts, shelf.num_rows > 0
    found = answers(sampler, requests(), max_restarts=limit, proven=proven)
    try:
        for number, answer in unless_all_refused(found, proven=proven):
            whole, place = asked.pop(number)
            if isinstance(answer, Sample):
                tokens += answer.num_tokens
                whole.samples[place] = answer
                if whole.aside or len(whole.samples) < len(whole.question.requests):
                    continue
                samples = [sample for _, sample in sorted(whole.samples.items())]
                shelf.add(whole.part, whole.task.key, whole.question.row(samples))
            elif whole.aside:
                continue
            else:
                whole.aside = True
                why = "refused" if isinstance(answer, RefusedError) else "kills the engine"
                shelf.set_aside(whole.part, whole.task, f"{why}: {answer}")
            # To find one that kills the engine took many restarts: it is stored at once.
            shelf.commit(now=isinstance(answer, EngineError))
            rate = tokens / max(time.monotonic() - started, 1e-6)
            progress.add(whole.task.num_rows, f"{rate:,.0f} tokens/s")
            held.tell(progress.done, progress.total, progress.rate)
    except EndpointError:
        shelf.commit(now=True)  # they are paid
        raise


@dataclass
class _Part(Generic[RowType]):
    """A part on its way."""

    tasks: dict[str, Task[RowType]]
    """All its tasks by their keys, in order."""
    missing: set[str]
    """The keys of those that are not finished."""


class _Shelf(Generic[RowType]):
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
