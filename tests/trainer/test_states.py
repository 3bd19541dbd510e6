"""A training state says the same to any number of processes and any ZeRO stage."""

import json
import re
from pathlib import Path

import pytest
import torch

from limbeck.config import DeepSpeedConfig
from limbeck.errors import ConfigError
from limbeck.trainer import ranks
from limbeck.trainer.engines import start_process, wrap
from limbeck.trainer.states import load_engine, save_engine
from tests.torchrun import in_processes
from tests.trainer.states_process import CASES, SAVED, Case, network, train

MODULE = "tests.trainer.states_process"


def test_states_of_one_process_and_of_two_go_on_in_one_and_in_two(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    start_process(0, DeepSpeedConfig())
    one.mkdir()
    two.mkdir()
    unbroken = {case.name: train(case, one) for case in CASES}
    in_processes(2, MODULE, str(two), str(one))
    by_two = json.loads((two / "losses.json").read_text())
    assert by_two["told"] == [[0], "of 2", 0.1, "ä"]
    assert by_two["shares"] == list(range(7))
    nodes, *_, batch = by_two["saves"][0]
    assert by_two["saves"] == [[nodes, True, True, True, False, True, batch]] * 2, "both decide alike"
    assert re.search("begin at different steps: expected one and the same training state, got 0, 1", nodes)
    assert re.search(
        r"a batch that 2 processes cannot share in sft.*a multiple of 2, got 7\. Change sft", batch
    )
    for case in CASES:
        rest, near = unbroken[case.name][SAVED:], 1e-6 if case.dtype == "float32" else 2e-2
        assert rest[0] > rest[-1]
        assert train(case, one, resume=one / case.name) == rest, case
        assert by_two["two"][case.name] == by_two["unbroken"][case.name][SAVED:], case
        assert by_two["unbroken"][case.name] == pytest.approx(unbroken[case.name], rel=near), case
        assert by_two["one"][case.name] == pytest.approx(rest, rel=near), case
        assert train(case, one, resume=two / case.name) == pytest.approx(rest, rel=near), case


def test_a_state_goes_on_in_another_zero_stage(tmp_path: Path) -> None:
    start_process(0, DeepSpeedConfig())
    rest = train(Case(3, "float32"), tmp_path)[SAVED:]
    state = tmp_path / Case(3, "float32").name
    for stage in (0, 1, 2):
        assert train(Case(stage, "float32"), tmp_path, resume=state) == pytest.approx(rest, rel=1e-6)


def test_a_state_before_the_first_update_is_one_too(tmp_path: Path) -> None:
    start_process(0, DeepSpeedConfig())
    case = Case(2, "float32")
    engines = [
        wrap(network(case), DeepSpeedConfig(), case.dtype, learning_rate=1e-2, micro_batch=1) for _ in "ab"
    ]
    with torch.no_grad():
        for parameter in engines[0].module.parameters():
            parameter.zero_()
    save_engine(engines[1], tmp_path / "state")
    load_engine(engines[0], tmp_path / "state")
    for one, other in zip(*(engine.module.parameters() for engine in engines), strict=True):
        assert torch.equal(one, other) or not one.requires_grad


@pytest.mark.parametrize(
    ("batch", "micro", "made"), [(8, None, (8, 1)), (8, 2, (2, 4)), (8, 16, (8, 1)), (8, 3, None)], ids=str
)
def test_how_one_process_makes_an_update(batch: int, micro: int | None, made: tuple[int, int] | None) -> None:
    if made:
        assert ranks.passes(batch, micro, "sft") == made
    else:
        with pytest.raises(ConfigError, match=r"in sft\.micro_batch_size: expected a divisor of 8.*got 3"):
            ranks.passes(batch, micro, "sft")
