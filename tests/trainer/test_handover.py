"""The weights that an engine is given: always the model's newest, whatever was in the file before."""

from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.config import DeepSpeedConfig, Dtype
from limbeck.trainer.handover import WeightsFile
from limbeck.trainer.networks import WEIGHTS, load_policy, save_weights
from tests import tiny


@pytest.mark.parametrize("lora_rank", [0, 4])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_file_has_the_newest_weights_after_each_write(
    tmp_path: Path, lora_rank: int, dtype: Dtype
) -> None:
    policy: Any = load_policy(
        tiny.checkpoint(tmp_path / "base"),
        dtype,
        DeepSpeedConfig(lora_rank=lora_rank, gradient_checkpointing=False),
    )
    inner = policy.get_base_model() if lora_rank else policy
    inner.register_buffer("counted", torch.tensor(7))  # not all that models keep are fractions
    weights = WeightsFile(tmp_path / WEIGHTS)
    for turn in range(3):
        torch.manual_seed(turn)
        with torch.no_grad():
            for weight in policy.parameters():
                if weight.requires_grad:
                    weight.add_(torch.randn_like(weight), alpha=0.3)
        weights.write(policy)
        save_weights(policy, tmp_path / "anew" / WEIGHTS)
        assert (tmp_path / WEIGHTS).read_bytes() == (tmp_path / "anew" / WEIGHTS).read_bytes()


def test_a_file_that_another_process_left_is_not_trusted(tmp_path: Path) -> None:
    policy = load_policy(tiny.checkpoint(tmp_path / "base"), "float32", DeepSpeedConfig())
    (tmp_path / WEIGHTS).write_bytes(b"half a file")
    WeightsFile(tmp_path / WEIGHTS).write(policy)
    save_weights(policy, tmp_path / "anew" / WEIGHTS)
    assert (tmp_path / WEIGHTS).read_bytes() == (tmp_path / "anew" / WEIGHTS).read_bytes()
