"""Answers from an engine that may die: it is started again, and the row that kills it is found.

When an engine dies or stalls, any of the requests it had may be why. They are asked again in halves, a
half at a time, then in halves of the half that died, until one request is alone. One that kills the engine
twice while it is alone is set aside; all others get their answers, with the same seeds.

A server of others is not started again; what it refuses is set aside, unless it refuses everything.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from limbeck.errors import EngineError
from limbeck.progress import say
from limbeck.sampling import Answer, RefusedError, Sample, SampleRequest, StreamingSampler

FATAL_DEATHS = 2
"""An engine can die of something else while a request is alone in it; hardly twice."""
FATAL_REFUSALS = 100
"""A server that refuses so many and has answered none would refuse all the others too."""

Numbered = tuple[int, SampleRequest]


def answers(
    sampler: StreamingSampler,
    requests: Iterable[Numbered],
    *,
    max_restarts: int,
    proven: bool = False,
) -> Iterator[tuple[int, Answer | EngineError]]:
    """Answers as they finish; for a request that is set aside, what the engine died of.

    Args:
        sampler: The engine. It is restarted in place, never closed.
        requests: With a number for each; taken as the engine has room.
        max_restarts: How often it may be started again.
        proven: Whether this engine has ever answered, in an earlier attempt. One that has not is to blame
            itself when it dies, and no request is.

    Raises:
        EngineError: when it died more often, or answered nothing at all.
    """
    unanswered: dict[int, SampleRequest] = {}

    def taken() -> Iterator[Numbered]:
        for number, request in requests:
            unanswered[number] = request
            yield number, request

    source = taken()  # lives on when the engine dies
    suspects: list[Sequence[Numbered]] = []  # groups to ask on their own, the last one first
    died_alone: Counter[int] = Counter()
    guilty: list[tuple[int, EngineError]] = []  # held back until the engine has shown that it still works
    restarts = 0
    while True:
        group = suspects.pop() if suspects else None
        unanswered.clear()
        unanswered.update(group or ())
        try:
            for number, sample in sampler.stream(source if group is None else group):
                del unanswered[number]
                proven = True
                yield number, sample
                yield from guilty
                guilty.clear()
        except EngineError as error:
            restarts = _restart(sampler, error, restarts, max_restarts)
            left = list(unanswered.items())
            if group is not None and len(group) == 1 and left:
                died_alone[left[0][0]] += 1
            if len(left) == 1 and died_alone[left[0][0]] >= FATAL_DEATHS:
                guilty.append((left[0][0], error))
            elif len(left) > 1:
                say(f"the engine is given the {len(left)} rows that it had in two halves")
                half = len(left) // 2
                suspects += [left[half:], left[:half]]
            elif left:
                suspects.append(left)
        else:
            if group is None:
                break
    if guilty and not proven:
        raise guilty[0][1]
    yield from guilty


def unless_all_refused(
    found: Iterable[tuple[int, Answer | EngineError]], *, proven: bool
) -> Iterator[tuple[int, Answer | EngineError]]:
    """Answers as they finish; refusals are held back until the server has answered anything.

    Args:
        found: From `answers`.
        proven: Whether it has, in an earlier attempt.

    Raises:
        RefusedError: when it refuses everything: the settings are to blame, and no row.
    """
    held: list[tuple[int, RefusedError]] = []
    for number, answer in found:
        if isinstance(answer, RefusedError) and not proven:
            held.append((number, answer))
            if len(held) >= FATAL_REFUSALS:
                raise answer
            continue
        proven = proven or isinstance(answer, Sample)
        yield from held
        held.clear()
        yield number, answer
    if held:
        raise held[0][1]


def _restart(sampler: StreamingSampler, died: EngineError, restarts: int, max_restarts: int) -> int:
    """Start a dead engine again.

    Returns:
        The restarts so far.

    Raises:
        EngineError: when there were too many.
    """
    while restarts < max_restarts:
        restarts += 1
        say(f"{died} - restart {restarts} of at most {max_restarts}")
        try:
            sampler.restart()
        except EngineError as error:
            died = error
        else:
            return restarts
    raise EngineError(
        "the engine does not stay alive",
        expected=f"at most {max_restarts} restarts (engine.max_restarts)",
        got=f"one more, the last reason: {died}",
        remedy="See the log. Finished rows are kept: the same run goes on from them",
    )
