"""Sft and the reward model in two processes give what they give in one, whatever ZeRO splits."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from limbeck import torchrun
from limbeck.config import parse_config
from limbeck.errors import ConfigError, LimbeckError
from limbeck.nodes import Node
from tests import saving, tiny
from tests.torchrun import in_processes
from tests.trainer import processes_cases
from tests.trainer.processes_cases import CASES, Case


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def by_two(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases in two processes, in one launch."""
    out = tmp_path_factory.mktemp("two")
    for case in CASES:
        (out / case.name).mkdir()
    in_processes(2, processes_cases.__name__, str(base), str(out))
    return out


@cache
def by_one(kind: tuple[str, str], base: Path, folder: Path) -> dict[str, Any]:
    """The first case of a kind in this process."""
    case = next(case for case in CASES if (case.training, case.kind) == kind)
    folder.mkdir(parents=True)
    return processes_cases.train(case, base, folder)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_two_processes_give_what_one_gives(
    case: Case, base: Path, by_two: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    one = by_one(
        (case.training, case.kind),
        base,
        tmp_path_factory.getbasetemp() / "one" / f"{case.training}, {case.kind}",
    )
    two = json.loads((by_two / f"{case.name}.json").read_text())
    near = 1e-4 if case.dtype == "float32" else 3e-2
    assert len(two["history"]) == len(one["history"]) > 2
    for mine, other in zip(one["history"], two["history"], strict=True):
        assert other == pytest.approx(mine, rel=near, abs=near), case
    assert two["scores"] == pytest.approx(one["scores"], abs=near)
    weights, others, start = (
        load_file(Path(folder) / "model.safetensors") for folder in (one["folder"], two["folder"], base)
    )
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(others[name], weight, rtol=0, atol=5 * near)
    moved = [name for name in start.keys() & weights if not torch.equal(start[name], weights[name])]
    assert len(moved) > 5, "the comparison says something"


def test_what_a_process_refuses_ends_the_stage_with_its_exit_code(base: Path, tmp_path: Path) -> None:
    config = parse_config({"student": {"dtype": "float32"}, "sft": {"batch_size": 7}})
    with pytest.raises(LimbeckError, match=r"a batch that 2 processes cannot share in sft") as caught:
        torchrun.train_sft(
            Node(), 2, base, [("sum a", "= w")], config, tmp_path, "sft", None, saving.no_saver()
        )
    assert caught.value.exit_code == ConfigError.exit_code
