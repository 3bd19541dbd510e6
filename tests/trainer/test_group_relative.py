"""RLOO and GRPO with TRL on DeepSpeed, rollouts from the real vLLM engine, on tiny models."""

import math
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, MixtralConfig, MixtralForCausalLM

from limbeck.config import Chat, PpoReward, parse_config
from limbeck.records import PpoPrompt
from limbeck.sampler import VllmSampler
from limbeck.sampling import LiveSampler
from limbeck.saver import Saver
from limbeck.trainer.group_relative import train_group_relative
from limbeck.trainer.ppo import train_ppo
from limbeck.trainer.transformers_sampler import TransformersSampler
from tests import saving, tiny
from tests.trainer.conftest import PROMPTS, has_w

ALGORITHMS = pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
KL = {"rloo": "ppo/kl", "grpo": "ppo/kl_k3"}


def train(
    folder: Path,
    student: Path,
    reward_folder: Path,
    sampler: LiveSampler,
    algorithm: str,
    *,
    prompts: list[PpoPrompt] = PROMPTS,
    resume: Path | None = None,
    saver: Saver | None = None,
    reward: PpoReward = "agreement",
    **ppo: Any,
) -> Any:
    config = parse_config(
        {
            "student": {"dtype": "float32"},
            "ppo": {
                "algorithm": algorithm,
                "num_updates": 12,
                "batch_size": 64,
                "samples_per_prompt": 8,
                "num_minibatches": 2,
                "max_tokens": 6,
                "learning_rate": 1e-2,
                "kl_coef": 0.001,
                "evaluate_every": 4,
                "missing_eos_penalty": 0.0,
                "anneal_lr": False,
                **ppo,
            },
        }
    )
    folder.mkdir()
    trainer = train_ppo if algorithm == "ppo" else train_group_relative
    return trainer(
        student,
        reward_folder,
        sampler,
        prompts,
        PROMPTS[:8],
        has_w,
        reward,
        config,
        folder,
        resume,
        saver or saving.no_saver(),
    )


def rounds(run: Any) -> list[dict[str, float]]:
    return [entry for entry in run.course.history if "ppo/score" in entry]


@pytest.mark.parametrize(
    ("algorithm", "deepspeed"),
    [
        ("rloo", {"zero_stage": 2}),
        ("grpo", {"zero_stage": 2}),
        ("rloo", {"lora_rank": 8}),
        ("grpo", {"zero_stage": 3}),
    ],
    ids=str,
)
def test_the_policy_learns_what_is_rewarded_and_starts_from_its_reference(
    tmp_path: Path,
    student: Path,
    reward_folder: Path,
    sampler: VllmSampler,
    algorithm: str,
    deepspeed: dict[str, int],
) -> None:
    run = train(tmp_path / "run", student, reward_folder, sampler, algorithm, deepspeed=deepspeed)
    steps = rounds(run)
    assert [entry["update"] for entry in steps] == list(range(1, 13))
    assert abs(steps[0][KL[algorithm]]) < 1e-5
    assert steps[-1][KL[algorithm]] > 0.01
    # Rollouts of the last rounds can only be better if they come from the newest weights.
    assert steps[-1]["ppo/batch_agreement"] > steps[0]["ppo/batch_agreement"] + 0.3
    assert run.course.best_agreement > run.course.start_agreement + 0.3
    assert (run.folder / "model.safetensors").exists()


@ALGORITHMS
def test_the_first_round_is_answered_and_scored_as_that_of_ppo(
    tmp_path: Path, student: Path, loving_folder: Path, sampler: VllmSampler, algorithm: str
) -> None:
    """What TRL says it was paid, with labels and without, and the penalty of cut rollouts in it."""
    some = [
        item if number % 3 else item.model_copy(update={"label": None}) for number, item in enumerate(PROMPTS)
    ]
    few: dict[str, Any] = {
        "num_updates": 1,
        "num_minibatches": 1,
        "num_ppo_epochs": 1,
        "samples_per_prompt": 2,
        "micro_batch_size": None,
        "missing_eos_penalty": 0.5,
        "temperature": 0.8,
        "reward": "mixed",
        "prompts": some,
    }
    first = {}
    for name in ("ppo", algorithm):
        sampler.load_weights(student)
        run = train(tmp_path / name, student, loving_folder, sampler, name, **few)
        (first[name],) = rounds(run)
    assert 0 < first["ppo"]["ppo/cut"] < 1
    for metric in ("score", "proxy", "batch_agreement", "length", "cut", "entropy"):
        name = f"ppo/{metric}"
        assert first[algorithm][name] == pytest.approx(first["ppo"][name], abs=1e-5), name
    for metric in ("value_loss", "explained_variance"):
        assert math.isnan(first[algorithm][f"ppo/{metric}"])


@ALGORITHMS
def test_the_kl_penalty_holds_the_policy_back(
    tmp_path: Path, student: Path, reward_folder: Path, sampler: VllmSampler, algorithm: str
) -> None:
    few: dict[str, Any] = {"num_updates": 6, "learning_rate": 2e-3}
    free = train(tmp_path / "free", student, reward_folder, sampler, algorithm, **few)
    sampler.load_weights(student)
    held = train(tmp_path / "held", student, reward_folder, sampler, algorithm, kl_coef=2.0, **few)
    assert rounds(held)[-1][KL[algorithm]] < 0.5 * rounds(free)[-1][KL[algorithm]]


@ALGORITHMS
def test_reward_hacking_stops_the_run_and_the_best_policy_is_kept(
    tmp_path: Path, student: Path, loving_folder: Path, sampler: VllmSampler, algorithm: str
) -> None:
    run = train(
        tmp_path / "run",
        student,
        loving_folder,
        sampler,
        algorithm,
        reward="model",
        num_updates=30,
        evaluate_every=2,
        hacking_drop=0.0,
        missing_eos_penalty=1.0,
    )
    assert run.course.stopped
    assert run.course.update == len(rounds(run)) < 30
    assert run.course.best_agreement >= run.course.start_agreement


@ALGORITHMS
def test_a_resumed_run_goes_on_with_the_same_rounds(
    tmp_path: Path, student: Path, reward_folder: Path, sampler: VllmSampler, algorithm: str
) -> None:
    few: dict[str, Any] = {"num_updates": 8, "kl_coef": 0.1, "anneal_lr": True}
    with saving.keeping(tmp_path) as (saver, kept):
        whole = train(tmp_path / "whole", student, reward_folder, sampler, algorithm, saver=saver, **few)
    assert not list((tmp_path / "whole" / "states").iterdir()), "a stored state leaves the disk"
    update, state = saving.middle(kept)
    assert 0 < update < 8
    assert not [file for file in state.rglob("*") if file.suffix in (".pt", ".pth", ".bin", ".pkl")]
    sampler.load_weights(student)
    resumed = train(tmp_path / "resumed", student, reward_folder, sampler, algorithm, resume=state, **few)
    assert [entry["update"] for entry in resumed.course.history] == list(range(9))
    for one, other in zip(whole.course.history[1:], resumed.course.history[1:], strict=True):
        for name in ("ppo/score", KL[algorithm], "ppo/entropy", "ppo/policy_loss"):
            assert one[name] == pytest.approx(other[name], abs=1e-3), name
        assert one["ppo/learning_rate"] == pytest.approx(other["ppo/learning_rate"], rel=1e-6)
    assert resumed.course.best_update == whole.course.best_update


@ALGORITHMS
def test_small_passes_recomputed_activations_and_packing_change_no_loss(
    tmp_path: Path, student: Path, reward_folder: Path, sampler: VllmSampler, algorithm: str
) -> None:
    kept, recomputed = ({"gradient_checkpointing": value} for value in (False, True))
    few: dict[str, Any] = {"num_updates": 3, "learning_rate": 1e-3}
    whole = train(
        tmp_path / "whole",
        student,
        reward_folder,
        sampler,
        algorithm,
        micro_batch_size=None,
        deepspeed=kept,
        **few,
    )
    sampler.load_weights(student)
    small = train(
        tmp_path / "small",
        student,
        reward_folder,
        sampler,
        algorithm,
        micro_batch_size=8,
        deepspeed=recomputed,
        packing=True,
        **few,
    )
    for one, other in zip(rounds(whole), rounds(small), strict=True):
        for name in ("ppo/policy_loss", "ppo/score", "ppo/length"):
            assert one[name] == pytest.approx(other[name], abs=1e-3), name


def test_a_mixture_of_experts_keeps_its_auxiliary_loss(tmp_path: Path, reward_folder: Path) -> None:
    shape = MixtralConfig(
        vocab_size=len(tiny.WORDS),
        num_local_experts=2,
        output_router_logits=True,
        eos_token_id=tiny.END,
        **tiny.SHAPE,
    )
    MixtralForCausalLM(shape).save_pretrained(tmp_path / "student")
    tiny.tokenizer().save_pretrained(tmp_path / "student")
    losses = {}
    for coef in (0.0, 10.0):
        config = AutoConfig.from_pretrained(tmp_path / "student", router_aux_loss_coef=coef)
        config.save_pretrained(tmp_path / "student")
        sampler = TransformersSampler(tmp_path / "student", "float32", 64, Chat())
        run = train(
            tmp_path / str(coef),
            tmp_path / "student",
            reward_folder,
            sampler,
            "rloo",
            num_updates=1,
            micro_batch_size=None,
        )
        losses[coef] = rounds(run)[0]["ppo/policy_loss"]
    # What balances two experts is 2 where each token is given to both in equal shares.
    assert losses[10.0] - losses[0.0] == pytest.approx(20, rel=0.2)


@pytest.mark.parametrize("deepspeed", [{"zero_stage": 2}, {"lora_rank": 8}], ids=str)
def test_what_the_engine_tells_of_its_samples_is_what_rloo_computes(
    tmp_path: Path, student: Path, reward_folder: Path, sampler: VllmSampler, deepspeed: dict[str, int]
) -> None:
    few: dict[str, Any] = {"num_updates": 3, "learning_rate": 1e-3, "deepspeed": deepspeed}
    computed = train(tmp_path / "computed", student, reward_folder, sampler, "rloo", **few)
    sampler.load_weights(student)
    told = train(tmp_path / "told", student, reward_folder, sampler, "rloo", old_logprobs="engine", **few)
    for one, other in zip(rounds(computed), rounds(told), strict=True):
        for name in ("policy_loss", "kl", "reward", "score", "entropy"):
            assert one[f"ppo/{name}"] == pytest.approx(other[f"ppo/{name}"], abs=1e-3), name
    assert any(
        one["ppo/kl"] != other["ppo/kl"] for one, other in zip(rounds(computed), rounds(told), strict=True)
    )
