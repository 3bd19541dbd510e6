"""What a stage that asks a model for rows has to do: tasks, in parts; and what came of it.

A task has a key. Within a stage's prefix, which hashes model, template and settings, the key stands for
(prompt, temperature, sample index, seed, model revision, template), so a row that is there is never
asked for again.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from limbeck.records import Completion, EvalResult, Judgement, RejectedRow
from limbeck.rows import is_part
from limbeck.sampling import ChatPrompt, Sample, SampleRequest
from limbeck.shards import WHOLE, Shard
from limbeck.spending import Tokens
from limbeck.storage import StoredObject

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
    question: Question[RowType] | str | Callable[[], Question[RowType] | str]
    """Or why nothing can be asked: the task is set aside. Where each row has a prompt of its own it is made
    when the engine has room: tokenizing a whole part would leave the engine idle."""
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
