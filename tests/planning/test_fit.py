"""What fits a GPU, and the smallest setting with which it does."""

from collections.abc import Callable
from pathlib import Path

import pytest

from limbeck.planning.model import Plan
from tests.planning.conftest import FOLDERS, of

Planned = Callable[..., Plan]


@pytest.mark.parametrize(
    ("gpu", "sections", "task", "said"),
    [
        ("H100", {}, "sft all", ""),
        (
            "A100-40GB",
            {
                "sft": {
                    "micro_batch_size": 32, "max_length": 2048,
                    "deepspeed": {"gradient_checkpointing": False},
                }
            },
            "sft all",
            "sft.micro_batch_size: 4, or one H200 of 140.4 GiB as it is",
        ),
        (
            "L40S",
            {
                "sft": {
                    "micro_batch_size": 1, "max_length": 16384,
                    "deepspeed": {"gradient_checkpointing": False},
                }
            },
            "sft all",
            "sft.deepspeed.gradient_checkpointing: true, or one H100 of 79.6 GiB as it is",
        ),
        (
            "L4",
            {},
            "reward",
            "reward.deepspeed.lora_rank: 16, or one A100-40GB of 40 GiB as it is",
        ),
        (
            "L40S",
            {},
            "ppo model",
            "ppo.deepspeed.lora_rank: 16, or one H100 of 79.6 GiB as it is",
        ),
        (
            "H100",
            {"ppo": {"gpu_memory_utilization": 0.04}},
            "ppo model",
            "ppo.gpu_memory_utilization: 0.3, or one H200 of 140.4 GiB as it is",
        ),
        (
            "L4",
            {"teacher": {"dtype": "float32"}},
            "judge",
            "engine.tensor_parallel_size 2 and resources.judge.gpus 2, or one A100-40GB of 40 GiB as it is",
        ),
        (
            "L40S",
            {"reward": {"init": "teacher", "deepspeed": {"lora_rank": 0}}},
            "reward",
            "reward.deepspeed.lora_rank: 16",
        ),
    ],
    ids=[
        "nothing where it fits", "micro batch", "activations recomputed", "LoRA on a small GPU",
        "what LoRA makes needless is left out", "a larger share for PPO's engine",
        "more GPUs for an engine", "LoRA for a large reward model",
    ],
)  # fmt: skip
def test_the_smallest_setting_that_fits(
    gpu: str, sections: dict[str, object], task: str, said: str, planned: Planned
) -> None:
    found = of(planned(gpu=gpu, **sections), task)
    assert (found.fits == "yes") == (said == "")
    assert found.smallest == said


def test_zero_over_more_gpus_is_what_is_left_where_adapters_alone_do_not_fit(
    planned: Planned, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, '
        '"num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 32000, '
        '"tie_word_embeddings": false, "max_position_embeddings": 4096}'
    )
    plan = planned(folders=FOLDERS | {"teacher": str(tmp_path)}, reward={"init": "teacher"})
    # Half of 128 GiB of frozen weights, and what scoring takes, is more than a GPU of 80 has.
    assert of(plan, "reward").smallest == (
        "reward.deepspeed.lora_rank: 16, reward.deepspeed.zero_stage: 3 and resources.reward.gpus 4"
    )
    assert of(plan, "judge").smallest == "engine.tensor_parallel_size 2 and resources.judge.gpus 2"


def test_what_surely_fails_is_an_error_and_what_may_fail_a_warning(planned: Planned) -> None:
    small = planned(gpu="L4")
    said = [(finding.severity, finding.text) for finding in small.findings]
    assert any(
        kind == "error" and text.startswith("too little GPU memory in stage ppo") for kind, text in said
    )
    assert any(kind == "warning" and "rollouts of stage ppo" in text for kind, text in said)
    assert of(small, "ppo model").seconds is None
    assert planned().findings == ()


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"ppo": {"max_tokens": 2048}}, "completions leave no room for a prompt in config.ppo.max_tokens"),
        ({"engine": {"max_model_len": 200_000}}, "the engine's context is longer than the model's"),
        ({"engine": {"tensor_parallel_size": 5}, "gpus": 5}, "attention heads that cannot be shared out"),
        ({"engine": {"tensor_parallel_size": 2}}, "fewer GPUs than the engine or the processes want"),
        ({"student": "", "prompts": ""}, "missing parameter `prompts`"),
    ],
    ids=["no room for a prompt", "too long a context", "heads", "too few GPUs", "parameters"],
)
def test_a_plan_names_other_things_that_surely_fail(
    sections: dict[str, object], said: str, planned: Planned
) -> None:
    errors = [item.text for item in planned(**sections).findings if item.severity == "error"]
    assert any(text.startswith(said) for text in errors), errors
