"""SFT with TRL on DeepSpeed, on a tiny model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from limbeck.config import Chat, ModelConfig, parse_config
from limbeck.errors import ConfigError, DataError
from limbeck.sampler import VllmSampler
from limbeck.sampling import SampleRequest
from limbeck.saver import Saver
from limbeck.trainer.networks import load_tokenizer
from limbeck.trainer.sft import train_sft
from limbeck.trainer.tokens import training_rows
from tests import saving, tiny
from tests.engines import ENGINE

PAIRS = [(f"sum {a} {b}", f"{b} {a} = w") for a in "abcdefgh" for b in "ijklmnop"]


def train(
    folder: Path,
    base: Path,
    *,
    pairs: Sequence[tuple[str, str]] = PAIRS,
    dtype: str = "float32",
    resume: Path | None = None,
    saver: Saver | None = None,
    **sft: Any,
) -> Any:
    config = parse_config(
        {
            "student": {"dtype": dtype},
            "sft": {"learning_rate": 1e-2, "num_epochs": 4, "batch_size": 16, **sft},
        }
    )
    folder.mkdir()
    return train_sft(base, pairs, config, folder, "sft", resume, saver or saving.no_saver())


def completion_loss(folder: Path) -> float:
    """Mean loss over completion tokens, by plain transformers."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), load_tokenizer(folder)
    total = count = 0.0
    for row in training_rows(tokenizer, Chat(), PAIRS[:8], 64, ""):
        with torch.no_grad():
            loss = model(torch.tensor([row.ids]), labels=torch.tensor([row.labels])).loss
        total += float(loss)
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
    assert resumed.history == whole.history
    assert completion_loss(resumed.folder) == completion_loss(whole.folder)


def test_small_passes_and_recomputed_activations_change_no_loss(tmp_path: Path) -> None:
    base = tiny.checkpoint(tmp_path / "base")
    kept, recomputed = ({"gradient_checkpointing": value} for value in (False, True))
    whole = train(tmp_path / "whole", base, num_epochs=1, micro_batch_size=None, deepspeed=kept)
    small = train(tmp_path / "small", base, num_epochs=1, micro_batch_size=4, deepspeed=recomputed)
    losses = [[entry["sft/loss"] for entry in run.history] for run in (whole, small)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-3)


MIXED = [
    (f"sum {a} {b}", f"{b} {a} " * (1 + n % 7) + "= w")
    for n, (a, b) in enumerate(zip("abcdefgh" * 8, "ijklmnop" * 8, strict=True))
]


@pytest.mark.parametrize("micro_batch_size", [None, 4])
@pytest.mark.parametrize("lora_rank", [0, 8])
def test_packing_changes_no_loss(tmp_path: Path, micro_batch_size: int | None, lora_rank: int) -> None:
    base = tiny.checkpoint(tmp_path / "base")
    few: dict[str, Any] = {
        "pairs": MIXED,
        "num_epochs": 2,
        "max_length": 30,
        "micro_batch_size": micro_batch_size,
        "deepspeed": {"lora_rank": lora_rank},
    }
    padded = train(tmp_path / "padded", base, packing=False, **few)
    packed = train(tmp_path / "packed", base, packing=True, **few)
    losses = [[entry["sft/loss"] for entry in run.history] for run in (padded, packed)]
    assert len(losses[0]) == 8
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert completion_loss(packed.folder) == pytest.approx(completion_loss(padded.folder), abs=1e-3)


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("lora_rank", [0, 8])
def test_bfloat16_with_recomputed_activations_learns(tmp_path: Path, packing: bool, lora_rank: int) -> None:
    base = tiny.checkpoint(tmp_path / "base")
    deepspeed = {"gradient_checkpointing": True, "lora_rank": lora_rank, "lora_alpha": 64.0}
    run = train(
        tmp_path / "run", base, dtype="bfloat16", packing=packing, deepspeed=deepspeed, learning_rate=2e-2
    )
    assert completion_loss(run.folder) < 0.7 * completion_loss(base)


def test_rows_that_are_all_prompt_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = tiny.checkpoint(tmp_path / "base")
    long = (f"sum {'a ' * 40}", "w")
    run = train(tmp_path / "run", base, pairs=[*PAIRS[:31], long], num_epochs=1, max_length=40)
    assert "1 of them are all prompt, and are left out" in capsys.readouterr().out
    assert len(run.history) == 2
    with pytest.raises(DataError, match=r"every prompt fills its row alone in sft\.max_length"):
        train(tmp_path / "none", base, pairs=[long], max_length=40)


def test_a_base_model_stops_where_its_template_ends_a_turn(tmp_path: Path) -> None:
    """Its tokenizer ends texts by another token, at which alone engines would stop."""
    base = tiny.checkpoint(tmp_path / "base")
    tokenizer = load_tokenizer(base)
    tokenizer.eos_token = "<unk>"
    tokenizer.save_pretrained(base)
    for name in ("config.json", "generation_config.json"):
        path = base / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": tokenizer.eos_token_id}))
    run = train(tmp_path / "run", base, num_epochs=20)
    generation = json.loads((run.folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [tokenizer.eos_token_id, tiny.END]
    sampler = VllmSampler(run.folder, ModelConfig(dtype="float32"), ENGINE)
    (sample,) = sampler.sample([SampleRequest(sampler.prompt_ids("sum a i"), 0.0, 20)])
    sampler.close()
    assert (sample.finish_reason, sample.token_ids[-1]) == ("stop", tiny.END)


def test_kernels_that_are_not_there_are_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"Liger's kernels are not available in deepspeed\.liger.*Set it to false"
    ):
        train(tmp_path / "run", tmp_path / "no model", deepspeed={"liger": True})
