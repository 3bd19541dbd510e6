"""The loop of the stages that ask a model for rows: ask, store, go on after a kill with what is missing.

What is asked is in `limbeck.work`, where finished rows go in `limbeck.shelf`.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Generic

from limbeck.config import Config
from limbeck.errors import EndpointError, EngineError
from limbeck.lease import Held
from limbeck.progress import Progress
from limbeck.sampling import OpenSampler, RefusedError, Sample, SampleRequest, StreamingSampler
from limbeck.shelf import Shelf
from limbeck.steady import answers, unless_all_refused
from limbeck.storage import Store
from limbeck.work import Made, Question, RowType, Task, Work


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
    shelf = Shelf(work, config, store, uri, held)
    progress = Progress(work.name, sum(work.sizes.values()), work.unit)
    progress.resume(shelf.num_rows)
    held.tell(progress.done, progress.total, 0.0)
    missing = [number for number in work.sizes if number not in shelf.whole]
    if missing:
        with closing(open_sampler()) as sampler:
            progress.begin()
            _make(work, missing, sampler, config, shelf, progress, held)
    return shelf.made()


@dataclass
class _Asked(Generic[RowType]):
    """A task whose answers are on their way; they come in any order."""

    part: int
    task: Task[RowType]
    question: Question[RowType]
    samples: dict[int, Sample] = field(default_factory=dict)
    """By the place of the request."""
    aside: bool = False


def _make(
    work: Work[RowType],
    missing: Sequence[int],
    sampler: StreamingSampler,
    config: Config,
    shelf: Shelf[RowType],
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
                question = task.question() if callable(task.question) else task.question
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
