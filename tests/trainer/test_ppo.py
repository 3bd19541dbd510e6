"""PPO on DeepSpeed with rollouts from the real vLLM engine, on tiny models."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from limbeck.config import PpoReward, parse_config
from limbeck.records import PpoPrompt
from limbeck.sampler import VllmSampler
from limbeck.sampling import SampleRequest
from limbeck.saver import Saver
from limbeck.trainer.ppo import train_ppo
from tests import saving
from tests.trainer.conftest import PROMPTS, has_w


def train(
    folder: Path,
    student: Path,
    reward_folder: Path,
    sampler: VllmSampler,
    *,
    resume: Path | None = None,
    saver: Saver | None = None,
    reward: PpoReward = "agreement",
    dtype: str = "float32",
    prompts: Sequence[PpoPrompt] = PROMPTS,
    **ppo: Any,
) -> Any:
    config = parse_config(
        {
            "student": {"dtype": dtype},
            "ppo": {
                "num_updates": 12,
                "batch_size": 64,
                "num_minibatches": 2,
                "max_tokens": 6,
                "learning_rate": 1e-2,
                "value_learning_rate": 1e-2,
                "kl_coef": 0.0,
                "critic_warmup_updates": 1,
                "evaluate_every": 4,
                "missing_eos_penalty": 0.0,
                "anneal_lr": False,
                **ppo,
            },
        }
    )
    folder.mkdir()
    return train_ppo(
        student,
        reward_folder,
        sampler,
        prompts,
        prompts[:8],
        has_w,
        reward,
        config,
        folder,
        resume,
        saver or saving.no_saver(),
    )


@pytest.mark.parametrize(
    "deepspeed", [{"zero_stage": 0}, {"zero_stage": 3}, {"zero_stage": 3, "lora_rank": 8}], ids=str
)
def test_the_policy_learns_what_is_rewarded_and_rollouts_come_from_the_newest_weights(
    tmp_path: Path, student: Path, reward_folder: Path, sampler: VllmSampler, deepspeed: dict[str, int]
) -> None:
    run = train(tmp_path / "run", student, reward_folder, sampler, deepspeed=deepspeed)
    steps = [entry for entry in run.course.history if "ppo/score" in entry]
    assert steps[-1]["ppo/batch_agreement"] > steps[0]["ppo/batch_agreement"] + 0.3
    assert run.course.best_agreement > run.course.start_agreement + 0.3
    assert abs(steps[0]["ppo/kl"]) < 1e-3, "the reference is the start"
    assert steps[-1]["ppo/kl"] > 0.1, "and stays there"
    # What the engine samples now is what the handed-over weights say: it follows the policy, not the start.
    folder = tmp_path / "run" / "weights"
    (folder / "config.json").write_bytes((student / "config.json").read_bytes())
    newest = AutoModelForCausalLM.from_pretrained(folder)
    ids = sampler.prompt_ids("sum a i")
    (sample,) = sampler.sample([SampleRequest(ids, 1.0, 6, seed=1, logprobs=True)])
    assert sample.logprob is not None
    for model, same in ((newest, True), (AutoModelForCausalLM.from_pretrained(student), False)):
        with torch.no_grad():
            all_logprobs = model(torch.tensor([ids + sample.token_ids])).logits[0].log_softmax(-1)
        total = sum(float(all_logprobs[len(ids) - 1 + n, token]) for n, token in enumerate(sample.token_ids))
        assert (abs(total - sample.logprob) < 1e-2) is same


@pytest.mark.parametrize("lora_rank", [0, 8])
def test_bfloat16_with_recomputed_activations_learns(
    tmp_path: Path, student: Path, reward_folder: Path, sampler: VllmSampler, lora_rank: int
) -> None:
    """The engine stays in float32: it takes bfloat16 weights over as they are."""
    deepspeed = {"gradient_checkpointing": True, "lora_rank": lora_rank}
    run = train(
        tmp_path / "run",
        student,
        reward_folder,
        sampler,
        dtype="bfloat16",
        deepspeed=deepspeed,
        num_updates=8,
    )
    assert run.course.best_agreement > run.course.start_agreement + 0.2


@pytest.mark.parametrize(("target_kl", "kept"), [(1e9, 4), (1e-9, 0)])
def test_without_labels_the_last_policy_within_the_kl_is_kept_and_none_is_called_hacked(
    tmp_path: Path, student: Path, reward_folder: Path, sampler: VllmSampler, target_kl: float, kept: int
) -> None:
    unlabelled = [prompt.model_copy(update={"label": None}) for prompt in PROMPTS]
    run = train(
        tmp_path / "run",
        student,
        reward_folder,
        sampler,
        reward="model",
        prompts=unlabelled,
        num_updates=4,
        evaluate_every=2,
        target_kl=target_kl,
        critic_warmup_updates=0,
    )
    assert run.course.best_update == kept
    measured = [entry for entry in run.course.history if "ppo/validation_proxy" in entry]
    assert [entry["update"] for entry in measured] == [0, 2, 4]
    assert not any("ppo/validation_agreement" in entry for entry in measured)
    assert not run.course.stopped
    start, chosen = (load_file(folder / "model.safetensors") for folder in (student, run.folder))
    unchanged = all(torch.equal(start[name], chosen[name]) for name in start if name in chosen)
    assert unchanged is (kept == 0)


def test_the_first_rounds_train_the_critic_alone(
    tmp_path: Path, student: Path, reward_folder: Path, sampler: VllmSampler
) -> None:
    run = train(tmp_path / "run", student, reward_folder, sampler, num_updates=6, critic_warmup_updates=6)
    steps = [entry for entry in run.course.history if "ppo/score" in entry]
    assert all(abs(entry["ppo/kl"]) < 1e-5 for entry in steps)
    assert steps[-1]["ppo/value_loss"] < steps[0]["ppo/value_loss"]


def test_the_kl_penalty_holds_the_policy_back(
    tmp_path: Path, student: Path, reward_folder: Path, sampler: VllmSampler
) -> None:
    free = train(tmp_path / "free", student, reward_folder, sampler, kl_coef=0.0)
    sampler.load_weights(student)
    held = train(tmp_path / "held", student, reward_folder, sampler, kl_coef=2.0)
    assert held.course.history[-1]["ppo/kl"] < 0.5 * free.course.history[-1]["ppo/kl"]


def test_reward_hacking_stops_the_run_and_the_best_policy_is_kept(
    tmp_path: Path, student: Path, loving_folder: Path, sampler: VllmSampler
) -> None:
    run = train(
        tmp_path / "run",
        student,
        loving_folder,
        sampler,
        reward="model",
        num_updates=30,
        evaluate_every=2,
        hacking_drop=0.0,
        critic_warmup_updates=0,
        missing_eos_penalty=1.0,
    )
    assert run.course.stopped
    assert run.course.update < 30
    assert run.course.best_agreement >= run.course.start_agreement


def test_a_resumed_run_goes_on_with_the_same_rounds(
    tmp_path: Path, student: Path, reward_folder: Path, sampler: VllmSampler
) -> None:
    few: dict[str, Any] = {"num_updates": 8, "adaptive_kl": True, "kl_coef": 0.1, "target_kl": 0.05}
    random.seed(1)
    with saving.keeping(tmp_path) as (saver, kept):
        whole = train(tmp_path / "whole", student, reward_folder, sampler, saver=saver, **few)
    after = random.getstate()
    update, state = saving.middle(kept)
    assert 0 < update < 8
    sampler.load_weights(student)
    random.seed(2)
    resumed = train(tmp_path / "resumed", student, reward_folder, sampler, resume=state, **few)
    assert random.getstate() == after, "generators go on where they were"
    assert [entry["update"] for entry in resumed.course.history] == list(range(9))
    for one, other in zip(whole.course.history[1:], resumed.course.history[1:], strict=True):
        assert one["ppo/score"] == pytest.approx(other["ppo/score"], abs=1e-3)
        assert one["ppo/kl"] == pytest.approx(other["ppo/kl"], abs=1e-3)
        assert one["ppo/kl_coef"] == pytest.approx(other["ppo/kl_coef"], rel=1e-3)


def test_a_resumed_run_keeps_the_best_policy_of_before(
    tmp_path: Path, student: Path, reward_folder: Path, sampler: VllmSampler
) -> None:
    """The critic alone learns, so that the policy of the start stays the best."""
    still: dict[str, Any] = {"num_updates": 4, "critic_warmup_updates": 4, "evaluate_every": 2}
    with saving.keeping(tmp_path) as (saver, kept):
        whole = train(tmp_path / "whole", student, reward_folder, sampler, saver=saver, **still)
    _, state = saving.middle(kept)
    resumed = train(tmp_path / "resumed", student, reward_folder, sampler, resume=state, **still)
    for name in ("best_update", "best_agreement", "start_agreement", "stopped"):
        assert getattr(resumed.course, name) == pytest.approx(getattr(whole.course, name)), name
    assert resumed.course.best_update == 0
    start, best = (load_file(folder / "model.safetensors") for folder in (student, resumed.folder))
    torch.testing.assert_close(best, start)


@pytest.mark.parametrize("packing", [False, True])
def test_what_the_engine_tells_of_its_samples_is_what_the_trainer_computes(
    packing: bool, tmp_path: Path, student: Path, reward_folder: Path, sampler: VllmSampler
) -> None:
    few: dict[str, Any] = {"num_updates": 3, "learning_rate": 1e-3, "packing": packing}
    few |= {"critic_warmup_updates": 0, "kl_coef": 0.05}
    computed = train(tmp_path / "computed", student, reward_folder, sampler, **few)
    sampler.load_weights(student)
    told = train(tmp_path / "told", student, reward_folder, sampler, old_logprobs="engine", **few)
    for one, other in zip(computed.course.history[1:], told.course.history[1:], strict=True):
        for name in ("policy_loss", "value_loss", "kl", "kl_k3", "clipfrac", "approx_kl", "reward", "score"):
            assert one[f"ppo/{name}"] == pytest.approx(other[f"ppo/{name}"], abs=1e-3), name
        assert one["ppo/entropy"] == pytest.approx(other["ppo/entropy"], rel=0.1)
        assert one["ppo/entropy"] != other["ppo/entropy"]


@pytest.mark.parametrize("packing", [False, True])
def test_small_passes_recomputed_activations_and_packing_change_no_loss(
    packing: bool, tmp_path: Path, student: Path, reward_folder: Path, sampler: VllmSampler
) -> None:
    kept, recomputed = ({"gradient_checkpointing": value} for value in (False, True))
    few: dict[str, Any] = {"num_updates": 3, "learning_rate": 1e-3}
    whole = train(
        tmp_path / "whole", student, reward_folder, sampler, micro_batch_size=None, deepspeed=kept, **few
    )
    sampler.load_weights(student)
    few |= {"micro_batch_size": 8, "forward_batch_size": 24, "deepspeed": recomputed, "packing": packing}
    small = train(tmp_path / "small", student, reward_folder, sampler, **few)
    for one, other in zip(whole.course.history[1:], small.course.history[1:], strict=True):
        for name in ("ppo/policy_loss", "ppo/value_loss", "ppo/clipfrac", "ppo/approx_kl", "ppo/score"):
            assert one[name] == pytest.approx(other[name], abs=1e-3), name
