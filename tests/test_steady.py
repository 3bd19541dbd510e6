"""Rows that kill the engine are found by bisection; all others are answered, once each."""

from collections.abc import Iterator

import pytest

from limbeck.errors import EngineError
from limbeck.sampling import Sample, SampleRequest
from limbeck.steady import answers
from tests.fakes import ScriptedSampler


def requests(count: int, sampler: ScriptedSampler) -> Iterator[tuple[int, SampleRequest]]:
    for number in range(count):
        yield number, SampleRequest(sampler.prompt_ids(f"p{number}"), 1.0, 8, seed=number)


def sampler(deadly: set[int], at_once: int = 8) -> ScriptedSampler:
    return ScriptedSampler(
        lambda prompt, seed: f"{prompt} {seed}", deadly=lambda prompt, seed: seed in deadly, at_once=at_once
    )


@pytest.mark.parametrize(
    ("deadly", "restarts"),
    [
        (set(), 0),
        # 8 in the engine, then 4, 2, 1 and 1 once more; where the other halves come first, as many deaths.
        ({0}, 5),
        ({19}, 5),
        ({11}, 5),
        ({3, 15}, 10),
        ({4, 5}, 7),
        ({0, 19}, 10),
        ({0, 1, 2}, 10),
    ],
    ids=["none", "first", "last", "middle", "two, far", "two, near", "first and last", "three"],
)
def test_every_row_is_answered_once_but_those_that_kill_the_engine(deadly: set[int], restarts: int) -> None:
    engine = sampler(deadly)
    found = list(answers(engine, requests(20, engine), max_restarts=30))
    aside = {number for number, answer in found if isinstance(answer, EngineError)}
    assert aside == deadly
    assert sorted(number for number, _ in found) == list(range(20))
    assert sorted(engine.answered) == sorted(set(range(20)) - deadly)
    for number, answer in found:
        assert not isinstance(answer, Sample) or answer.text == f"p{number} {number}"
    assert engine.restarts == restarts
    assert engine.most_in_flight == 8


def test_an_engine_that_dies_of_something_else_costs_one_restart_and_no_row() -> None:
    left = {"deaths": 1}

    def once(prompt: str, seed: int | None) -> bool:
        left["deaths"] -= seed == 7
        return seed == 7 and left["deaths"] >= 0

    engine = ScriptedSampler(lambda prompt, seed: prompt, deadly=once)
    found = list(answers(engine, requests(20, engine), max_restarts=1))
    assert sorted(engine.answered) == list(range(20))
    assert not any(isinstance(answer, EngineError) for _, answer in found)
    assert engine.restarts == 1


@pytest.mark.parametrize("proven", [False, True])
def test_when_every_row_kills_the_engine_it_is_the_engine(proven: bool) -> None:
    engine = sampler(set(range(20)))
    found: list[object] = []
    with pytest.raises(EngineError, match=r"does not stay alive.*at most 6 restarts"):
        found.extend(answers(engine, requests(20, engine), max_restarts=6, proven=proven))
    assert not found, "no row is blamed for a broken engine"
    assert engine.restarts == 6


@pytest.mark.parametrize("proven", [False, True])
def test_the_only_row_left_is_to_blame_if_the_engine_has_answered_before(proven: bool) -> None:
    engine = sampler({0})
    found = answers(engine, requests(1, engine), max_restarts=30, proven=proven)
    if proven:
        assert [number for number, _ in found] == [0]
    else:
        with pytest.raises(EngineError, match="the engine is dead"):
            list(found)


def test_an_engine_that_does_not_come_up_again_is_tried_as_often_as_allowed() -> None:
    class Down(ScriptedSampler):
        def restart(self) -> None:
            super().restart()
            raise EngineError("no memory left")

    engine = Down(lambda prompt, seed: prompt, deadly=lambda prompt, seed: seed == 3)
    with pytest.raises(EngineError, match=r"does not stay alive.*the last reason: no memory left"):
        list(answers(engine, requests(20, engine), max_restarts=4))
    assert engine.restarts == 4
