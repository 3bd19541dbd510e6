"""Two real vLLM engines that share the rows of one task: together they answer what one would."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from limbeck.config import EngineConfig, ModelConfig
from limbeck.engine_fleet import EngineFleet, devices
from limbeck.engine_process import IN_FLIGHT
from limbeck.errors import ConfigError, EngineError
from limbeck.sampling import Sample, SampleRequest
from limbeck.steady import answers
from tests import tiny

pytestmark = pytest.mark.usefixtures("forked_engines")
NUM_SEQS = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", width=256)


@pytest.fixture(scope="module")
def fleet(folder: Path) -> Iterator[EngineFleet]:
    engine = EngineConfig(
        max_model_len=64, max_num_seqs=NUM_SEQS, kv_cache_mib=64, enforce_eager=True, data_parallel_size=2
    )
    made = EngineFleet(folder, ModelConfig(dtype="float32"), engine)
    yield made
    made.close()


def asked(fleet: EngineFleet, count: int) -> list[tuple[int, SampleRequest]]:
    return [
        (
            number,
            SampleRequest(
                fleet.chat_prompt(f"sum {'abcdefghij'[number % 10]} b"), 1.0, 8 + number % 30, number
            ),
        )
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def expected(fleet: EngineFleet) -> list[list[int]]:
    """What one of them answers alone."""
    found: dict[int, Sample] = dict(fleet._engines[0].stream(asked(fleet, 120)))
    return [found[number].token_ids for number in range(120)]


def test_both_engines_answer_what_one_would(fleet: EngineFleet, expected: list[list[int]]) -> None:
    most: list[int] = [0, 0]

    def watched() -> Iterator[tuple[int, SampleRequest]]:
        for item in asked(fleet, 120):
            yield item
            for place, engine in enumerate(fleet._engines):
                most[place] = max(most[place], engine.in_flight)

    found: dict[int, Sample] = dict(fleet.stream(watched()))
    assert [found[number].token_ids for number in range(120)] == expected
    assert most == [IN_FLIGHT * NUM_SEQS] * 2


def test_one_that_is_killed_loses_its_own_rows_alone_and_is_the_only_one_started_again(
    fleet: EngineFleet, expected: list[list[int]]
) -> None:
    first, second = (engine.pid for engine in fleet._engines)
    found: dict[int, list[int]] = {}

    def kill_first() -> None:
        for number, sample in fleet.stream(asked(fleet, 120)):
            found[number] = sample.token_ids
            if len(found) == 20:
                os.kill(first, signal.SIGKILL)

    with pytest.raises(EngineError, match="the engine's process ended"):
        kill_first()
    handed_out = max(found) + 1
    assert handed_out - len(found) <= IN_FLIGHT * NUM_SEQS
    fleet.restart()
    again = [engine.pid for engine in fleet._engines]
    assert again[0] != first
    assert again[1] == second
    # And as the stages do it: with all the others asked again.
    killed = False
    found.clear()
    for number, answer in answers(fleet, asked(fleet, 120), max_restarts=1):
        assert isinstance(answer, Sample)
        found[number] = answer.token_ids
        if not killed:
            killed = True
            os.kill(second, signal.SIGKILL)
    assert [found[number] for number in range(120)] == expected


@pytest.mark.parametrize(
    ("sizes", "visible", "count", "shares"),
    [
        ({"data_parallel_size": 2}, None, 0, [None, None]),
        ({"data_parallel_size": 2}, None, 4, ["0", "1"]),
        ({"data_parallel_size": 2, "tensor_parallel_size": 2}, None, 4, ["0,1", "2,3"]),
        ({"data_parallel_size": 2, "pipeline_parallel_size": 2}, "7,5,3,1", 4, ["7,5", "3,1"]),
        ({"data_parallel_size": 2}, "GPU-a,GPU-b", 2, ["GPU-a", "GPU-b"]),
    ],
)
def test_each_engine_has_gpus_of_its_own(
    sizes: dict[str, int], visible: str | None, count: int, shares: list[str | None]
) -> None:
    assert devices(EngineConfig.model_validate(sizes), visible, count) == shares


def test_more_engines_than_gpus_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"expected 6: 3 engines \(data_parallel_size\) of 2 GPUs each, got 4"
    ):
        devices(EngineConfig(data_parallel_size=3, tensor_parallel_size=2), None, 4)
