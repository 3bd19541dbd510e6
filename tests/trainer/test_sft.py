"""SFT with TRL on DeepSpeed, on a tiny model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from limbeck.config import parse_config
from limbeck.saver import Saver
from limbeck.trainer.networks import load_tokenizer
from limbeck.trainer.sft import train_sft
from limbeck.trainer.tokens import conversation_ids
from tests import saving, tiny

PAIRS = [(f"sum {a} {b}", f"{b} {a} = w") for a in "abcdefgh" for b in "ijklmnop"]


def train(
    folder: Path, base: Path, *, resume: Path | None = None, saver: Saver | None = None, **sft: Any
) -> Any:
    config = parse_config(
        {
            "student": {"dtype": "float32"},
            "sft": {"learning_rate": 1e-2, "num_epochs": 4, "batch_size": 16, **sft},
        }
    )
    folder.mkdir()
    return train_sft(base, PAIRS, config, folder, "sft", resume, saver or saving.no_saver())


def completion_loss(folder: Path) -> float:
    """Mean loss over completion tokens, by plain transformers."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), load_tokenizer(folder)
    total = count = 0.0
    for prompt, completion in PAIRS[:8]:
        ids = conversation_ids(tokenizer, prompt, completion, 64)
        labels = [-100] * (len(ids) - len(completion.split()) - 1) + ids[-len(completion.split()) - 1 :]
        assert tokenizer.decode([label for label in labels if label >= 0]).split() == [
            *completion.split(),
            "<|end|>",
        ]
        with torch.no_grad():
            total += float(model(torch.tensor([ids]), labels=torch.tensor([labels])).loss)
        count += 1
    return total / count


@pytest.mark.parametrize(("zero_stage", "lora_rank"), [(0, 0), (2, 0), (3, 0), (2, 8), (3, 8)], ids=str)
def test_the_student_learns_its_completions(tmp_path: Path, zero_stage: int, lora_rank: int) -> None:
    base = tiny.checkpoint(tmp_path / "base")
    settings = {"zero_stage": zero_stage, "lora_rank": lora_rank, "lora_alpha": 64.0}
    run = train(tmp_path / "run", base, deepspeed=settings, learning_rate=2e-2)
    assert completion_loss(run.folder) < 0.6 * completion_loss(base)
    assert run.history[-1]["sft/loss"] < run.history[0]["sft/loss"]


def test_the_prompt_is_not_trained_on(tmp_path: Path) -> None:
    """With completions that are always the same token, the loss says nothing of the prompts' letters."""
    base = tiny.checkpoint(tmp_path / "base")
    run = train(tmp_path / "run", base, num_epochs=20)
    assert run.history[-1]["sft/loss"] < 0.7  # one of two letters first, then all is certain


def test_a_resumed_run_ends_where_an_unbroken_one_ends(tmp_path: Path) -> None:
    base = tiny.checkpoint(tmp_path / "base")
    with saving.keeping(tmp_path) as (saver, kept):
        whole = train(tmp_path / "whole", base, saver=saver)
    assert not list((tmp_path / "whole" / "trainer").glob("checkpoint-*")), "a stored state leaves the disk"
    step, state = saving.middle(kept)
    assert 0 < step < 16
    resumed = train(tmp_path / "resumed", base, resume=state)
    assert [entry["step"] for entry in resumed.history] == list(range(1, 17))
    for one, other in zip(whole.history, resumed.history, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    assert completion_loss(resumed.folder) == pytest.approx(completion_loss(whole.folder), rel=1e-4)


def test_small_passes_and_recomputed_activations_change_no_loss(tmp_path: Path) -> None:
    base = tiny.checkpoint(tmp_path / "base")
    kept, recomputed = ({"gradient_checkpointing": value} for value in (False, True))
    whole = train(tmp_path / "whole", base, num_epochs=1, micro_batch_size=None, deepspeed=kept)
    small = train(tmp_path / "small", base, num_epochs=1, micro_batch_size=4, deepspeed=recomputed)
    losses = [[entry["sft/loss"] for entry in run.history] for run in (whole, small)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-3)
