"""Checkpoints of trained networks: LoRA is merged into them, and saving changes nothing that is trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM

from limbeck.config import DeepSpeedConfig, Dtype, ModelConfig
from limbeck.sampler import VllmSampler
from limbeck.sampling import SampleRequest
from limbeck.trainer.engines import start_process, wrap
from limbeck.trainer.networks import (
    WEIGHTS,
    Scorer,
    load_policy,
    load_tokenizer,
    save_checkpoint,
    save_weights,
    share_frozen,
)
from tests import tiny
from tests.engines import ENGINE

LORA = DeepSpeedConfig(lora_rank=4, gradient_checkpointing=False)
IDS = torch.tensor([[2, 5, 11, 12, 3, 7, 9, 4]])


def learn(model: nn.Module) -> None:
    """Move all that is trained, as a training would."""
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight), alpha=0.3)


def test_a_merged_reward_model_scores_as_the_adapted_one_and_its_head_is_trained(tmp_path: Path) -> None:
    base = tiny.checkpoint(tmp_path / "base")
    scorer = Scorer(base, "float32", LORA)
    trained = {name for name, weight in scorer.named_parameters() if weight.requires_grad}
    assert any(name.endswith("score.modules_to_save.default.weight") for name in trained)
    learn(scorer)
    mask = torch.ones_like(IDS)
    after = scorer(IDS, mask)
    assert float(after.detach().abs().max()) > 0.1
    folder = save_checkpoint(scorer, load_tokenizer(base), tmp_path / "merged")
    torch.testing.assert_close(
        Scorer(folder, "float32", None)(IDS, mask), after.detach(), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_saving_an_adapted_model_leaves_its_weights_as_they_are(tmp_path: Path, dtype: Dtype) -> None:
    """PPO saves at each round: what merging and unmerging left behind would add up."""
    policy = load_policy(tiny.checkpoint(tmp_path / "base"), dtype, LORA)
    learn(policy)
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    save_weights(policy, tmp_path / WEIGHTS)
    for name, value in policy.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_weights_that_zero_has_split_are_whole_and_merged_in_the_checkpoint(tmp_path: Path) -> None:
    """Wide enough that ZeRO splits the base weights: it leaves those of fewer than 100,000 elements whole."""
    config = LORA.model_copy(update={"zero_stage": 3})
    base = tiny.checkpoint(tmp_path / "base", width=512)
    start_process(1, config)
    engine = wrap(load_policy(base, "float32", config), config, "float32", learning_rate=0.1, micro_batch=1)
    assert any(weight.numel() == 0 for weight in engine.module.parameters())
    for _ in range(3):
        engine.backward(engine(input_ids=IDS, labels=IDS).loss)
        engine.step()
    with torch.no_grad():
        after = engine(input_ids=IDS).logits
    folder = save_checkpoint(engine.module, load_tokenizer(base), tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(folder)
    assert not torch.allclose(AutoModelForCausalLM.from_pretrained(base)(IDS).logits, after, atol=0.1)
    torch.testing.assert_close(merged(IDS).logits, after, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("tied", [True, False])
def test_a_merged_policy_gives_what_the_adapted_one_gives(tmp_path: Path, tied: bool) -> None:
    base = tiny.checkpoint(tmp_path / "base", tied=tied)
    policy: Any = load_policy(base, "float32", LORA)
    assert isinstance(policy, PeftModel)
    before = policy(IDS).logits
    learn(policy)
    after = policy(IDS).logits
    assert not torch.allclose(before, after, atol=0.1)
    folder = save_checkpoint(policy, load_tokenizer(base), tmp_path / "merged")
    assert {path.name for path in folder.iterdir()} == {path.name for path in base.iterdir()}
    merged = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(merged(IDS).logits, after, rtol=1e-4, atol=1e-4)

    sampler = VllmSampler(folder, ModelConfig(dtype="float32"), ENGINE)
    (sample,) = sampler.sample([SampleRequest(sampler.prompt_ids("sum a b"), 0.0, 6)])
    ids, out = sampler.prompt_ids("sum a b"), list[int]()
    sampler.close()
    while len(out) < 6 and tiny.END not in out:
        out.append(int(policy(torch.tensor([ids + out])).logits[0, -1].argmax()))
    assert sample.token_ids == out


@pytest.mark.parametrize("frozen", [True, False], ids=["a reward model", "a policy with adapters"])
def test_a_critic_with_adapters_keeps_no_copy_of_what_another_model_holds(
    tmp_path: Path, frozen: bool
) -> None:
    base = tiny.checkpoint(tmp_path / "base")
    owner = Scorer(base, "float32", None).model if frozen else load_policy(base, "float32", LORA)
    critics = []
    for _ in range(2):
        torch.manual_seed(3)
        critics.append(Scorer(base, "float32", LORA, new_head=True))
    critic, alone = critics
    share_frozen(critic.model, owner)
    theirs = {weight.data_ptr() for weight in owner.parameters()}
    apart = {name for name, weight in critic.named_parameters() if weight.data_ptr() not in theirs}
    assert apart == {
        name
        for name, weight in critic.named_parameters()
        if weight.requires_grad or name.endswith("score.original_module.weight")
    }
    before = {name: weight.clone() for name, weight in owner.named_parameters()}
    learn(critic)
    learn(alone)
    mask = torch.ones_like(IDS)
    assert float(critic(IDS, mask).detach().abs().max()) > 0.1
    torch.testing.assert_close(critic(IDS, mask), alone(IDS, mask))
    assert all(torch.equal(weight, before[name]) for name, weight in owner.named_parameters())
