"""The memory formulas against figures worked out by hand."""

from typing import Any, Literal

import pytest

from limbeck.config import Config, DeepSpeedConfig, EngineConfig
from limbeck.preflight import memory
from limbeck.preflight.memory import GIB, Need, Shape, Training

TOY = Shape(
    parameters=1000,
    head_parameters=100,
    linear_widths=50,
    stored_bytes=600,
    quantized=False,
    hidden=8,
    intermediate=16,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=2,
    vocabulary=10,
)


def like_toy(**changes: int) -> Shape:
    return Shape(**{**vars(TOY), **changes})


ENGINE = EngineConfig(max_model_len=10, max_num_seqs=2, kv_cache_mib=1)
# 20 tokens x (2 x 8 + 3 x 16) x 2 bytes, 2 sequences x 10 logits x 12 bytes.
WORKSPACE = 20 * 64 * 2 + 240 + GIB


def test_weights() -> None:
    assert memory.weights(TOY, "bfloat16") == 2000
    assert memory.weights(TOY, "float32") == 4000
    assert memory.weights(like_toy(quantized=True), "float32") == 600


@pytest.mark.parametrize(("split", "expected"), [(1, 320), (2, 160), (4, 160)])
def test_kv_cache_of_ten_tokens(split: int, expected: int) -> None:
    # 2 (key, value) x 2 layers x 2 heads x 2 x 2 bytes = 32 a token; a GPU has at least one head.
    engine = EngineConfig(tensor_parallel_size=split)
    assert memory.kv_cache(TOY, "bfloat16", 10, engine) == expected
    half = EngineConfig(tensor_parallel_size=split, pipeline_parallel_size=2)  # a layer on each of two
    assert memory.kv_cache(TOY, "bfloat16", 10, half) == expected // 2


def test_kv_cache_of_a_model_that_people_know() -> None:
    # Llama 3 8B: 2 x 32 layers x 8 heads x 128 x 2 bytes = 128 KiB a token.
    assert memory.kv_cache(like_toy(layers=32, kv_heads=8, head_dim=128), "bfloat16", 1) == 128 << 10


ZERO = {
    (0, "float32"): Training(states=12_000, gradients=4000, bucket=0, step=8000),
    (0, "bfloat16"): Training(states=14_000, gradients=2000, bucket=0, step=8000),
    (1, "bfloat16"): Training(states=14_000, gradients=2000, bucket=10**9, step=8000),
    (2, "bfloat16"): Training(states=14_000, gradients=2000, bucket=10**9, step=8000),
    (2, "float32"): Training(states=16_000, gradients=4000, bucket=2 * 10**9, step=8000),
    (3, "bfloat16"): Training(states=16_000 + 10**9, gradients=0, bucket=0, step=8000),
    (3, "float32"): Training(states=20_000 + 2 * 10**9, gradients=0, bucket=0, step=8000),
}


@pytest.mark.parametrize(("setting", "expected"), ZERO.items(), ids=str)
def test_a_thousand_weights_in_training(setting: tuple[int, str], expected: Training) -> None:
    config = DeepSpeedConfig.model_validate({"zero_stage": setting[0]})
    dtype = Config.model_validate({"student": {"dtype": setting[1]}}).student.dtype
    assert memory.training(1000, 50, dtype, config) == expected


def test_adapters_alone_are_trained_with_lora() -> None:
    # 4 x 50 = 200 trained weights of 14 bytes beside 1000 frozen ones of 2.
    config = DeepSpeedConfig(zero_stage=0, lora_rank=4)
    assert memory.training(1000, 50, "bfloat16", config) == Training(4800, 400, 0, 1600)


def test_what_a_layer_keeps_of_a_token() -> None:
    # Norms 2 x ((4 + 2 x 2) x 8 + 4) = 136; attention 2 x (4 x 8 + 10) + 4 x 4 = 100; MLP 4 x 2 x 16 = 128.
    assert memory.layer_activations(TOY, "bfloat16", 10) == 364
    # 2 x (12 x 8 + 4) = 200, 4 x 42 + 16 = 184, 256.
    assert memory.layer_activations(TOY, "float32", 10) == 640
    # And (4 + 2) x (8 + 4) + 4 x (4 + 2) = 96 for normalised heads.
    assert memory.layer_activations(like_toy(normed_heads=True), "bfloat16", 10) == 460


def test_what_a_batch_keeps() -> None:
    assert memory.activations(TOY, "bfloat16", 3, 10, checkpointing=False) == 30 * 2 * 364
    # Each layer's input, 2 x 8 x 2 bytes, and one layer in full.
    assert memory.activations(TOY, "bfloat16", 3, 10, checkpointing=True) == 30 * (32 + 364)
    # Logits of 2 bytes, two pieces of 4.
    assert memory.policy_logits(5, 10, "bfloat16") == 50 * 10


def test_an_engine() -> None:
    mib = 1 << 20
    assert memory.engine_need(TOY, "bfloat16", ENGINE) == Need(
        certain=2000 + mib,
        likely=2000 + mib + WORKSPACE,
        parts={"weights": 2000, "KV cache of one sequence": mib, "workspace": WORKSPACE},
    )
    assert memory.sequences(TOY, "bfloat16", ENGINE, gpu_bytes=0) == mib // 320
    share = ENGINE.model_copy(update={"kv_cache_mib": None})
    assert memory.engine_need(TOY, "bfloat16", share).certain == 2000 + 320
    assert memory.sequences(TOY, "bfloat16", share, gpu_bytes=10 * GIB) == (
        (9 * GIB - 2000 - WORKSPACE) // 320
    )
    assert memory.sequences(TOY, "bfloat16", share, gpu_bytes=GIB) == 0


def kept(zero_stage: int) -> dict[str, Any]:
    return {"zero_stage": zero_stage, "gradient_checkpointing": False}


SETTINGS = Config.model_validate(
    {
        "student": {"dtype": "bfloat16"},
        "engine": ENGINE.model_dump(),
        "sft": {"batch_size": 6, "micro_batch_size": 3, "max_length": 10, "deepspeed": kept(0)},
        "reward": {"batch_size": 8, "micro_batch_size": 2, "max_length": 10, "deepspeed": kept(2)},
        "ppo": {"batch_size": 4, "num_minibatches": 2, "max_tokens": 5, "deepspeed": kept(0)},
    }
)


def test_sft() -> None:
    need = memory.sft_need(TOY, "bfloat16", SETTINGS.sft)
    assert need.certain == 14_000 + 8000
    assert need.likely == 14_000 + 2000 + 30 * 2 * 364 + GIB
    assert need.parts["activations"] == 21_840


def test_an_optimizer_step_that_needs_more_than_the_pass_before_it() -> None:
    short = SETTINGS.sft.model_copy(update={"max_length": 1})
    need = memory.sft_need(TOY, "bfloat16", short)
    assert need.parts == {"weights and optimizer": 14_000, "optimizer step": 8000, "CUDA": GIB}


@pytest.mark.parametrize(("loss", "rows"), [("bce", 2), ("bradley_terry", 4)])
def test_reward(loss: str, rows: int) -> None:
    # Deep rows: what scoring takes is small beside the training.
    wide = like_toy(layers=2000)
    settings = SETTINGS.reward.model_copy(update={"loss": loss})
    need = memory.reward_need(wide, "bfloat16", settings)
    assert need.certain == 900 * 14 + 900 * 8  # the output head is dropped
    assert need.likely == 900 * 14 + 900 * 2 + rows * 10 * 2000 * 364 + 10**9 + GIB


def test_ppo() -> None:
    need = memory.ppo_need(TOY, TOY, SETTINGS, gpu_bytes=80 * GIB)
    # Engine, reference, reward model, policy, critic without output head; the step of the larger.
    states = 2000 + (1 << 20) + 2000 + 1800 + 14_000 + 900 * 14
    assert need.certain == states + 8000
    # Scoring 32,768 tokens, 64 x 2 bytes each, is the widest pass.
    assert need.likely == states + 2000 + 32_768 * 64 * 2 + WORKSPACE


def test_ppo_beside_an_engine_that_takes_a_share() -> None:
    share = SETTINGS.model_copy(update={"engine": ENGINE.model_copy(update={"kv_cache_mib": None})})
    need = memory.ppo_need(TOY, TOY, share, gpu_bytes=10 * GIB)
    assert need.parts["engine"] == 2 * GIB
    assert need.certain == 2 * GIB + 2000 + 1800 + 14_000 + 900 * 14 + 8000


def test_ppo_whose_rollouts_transformers_samples() -> None:
    generated = SETTINGS.ppo.model_copy(update={"sampler": "transformers"})
    settings = SETTINGS.model_copy(update={"ppo": generated})
    need, engines = (memory.ppo_need(TOY, TOY, item, gpu_bytes=10 * GIB) for item in (settings, SETTINGS))
    assert need.parts["engine"] == 2000
    assert engines.certain - need.certain == 1 << 20
    # A batch larger than what scoring takes: 100,000 answers of 10 tokens, 32 bytes each, and their logits.
    many = ENGINE.model_copy(update={"max_num_seqs": 100_000})
    large = memory.ppo_need(TOY, TOY, settings.model_copy(update={"engine": many}), gpu_bytes=10 * GIB)
    assert large.parts["activations and logits"] == 100_000 * (10 * 32 + TOY.vocabulary * 30)
    assert large.certain == need.certain


def test_ppo_beside_a_judge() -> None:
    plain = memory.ppo_need(TOY, TOY, SETTINGS, gpu_bytes=80 * GIB)
    judged = memory.ppo_need(TOY, TOY, SETTINGS, gpu_bytes=80 * GIB, judge=like_toy(parameters=5000))
    # Weights in bfloat16, a cache of 1 MiB, and a workspace as the policy's engine has one.
    assert judged.certain - plain.certain == judged.parts["judge"] == 10_000 + (1 << 20)
    assert judged.likely - plain.likely == 10_000 + (1 << 20) + WORKSPACE
    share = SETTINGS.model_copy(update={"engine": ENGINE.model_copy(update={"kv_cache_mib": None})})
    need = memory.ppo_need(TOY, TOY, share, gpu_bytes=10 * GIB, judge=TOY)
    assert (need.parts["engine"], need.parts["judge"]) == (2 * GIB, 3 * GIB)
    assert need.likely - need.certain == memory.ppo_need(TOY, TOY, share, 10 * GIB).likely - (
        memory.ppo_need(TOY, TOY, share, 10 * GIB).certain
    ), "its workspace is in its share"


@pytest.mark.parametrize(
    ("settings", "reference"),
    [({}, 2000), ({"kl_coef": 0.0}, 0)],
    ids=["with a reference", "without KL"],
)
@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_algorithms_without_a_critic(algorithm: str, settings: dict[str, float], reference: int) -> None:
    ppo = SETTINGS.ppo.model_copy(update={"algorithm": algorithm} | settings)
    need = memory.ppo_need(TOY, TOY, SETTINGS.model_copy(update={"ppo": ppo}), gpu_bytes=80 * GIB)
    # Engine, reference, reward model, policy.
    states = 2000 + (1 << 20) + reference + 1800 + 14_000
    assert need.certain == states + 8000
    assert need.likely == states + 2000 + 32_768 * 64 * 2 + WORKSPACE


@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo"])
def test_adapters_that_can_be_switched_off_are_their_own_reference(algorithm: str) -> None:
    lora = DeepSpeedConfig(zero_stage=0, lora_rank=4)
    ppo = SETTINGS.ppo.model_copy(update={"algorithm": algorithm, "deepspeed": lora})
    need = memory.ppo_need(TOY, TOY, SETTINGS.model_copy(update={"ppo": ppo}), gpu_bytes=80 * GIB)
    assert need.parts["reference"] == 0


@pytest.mark.parametrize(("zero_stage", "shared"), [(0, 1800), (2, 1800), (3, 0)])
def test_a_critic_with_adapters_holds_no_copy_of_the_model_it_starts_from(
    zero_stage: Literal[0, 2, 3], shared: int
) -> None:
    lora = DeepSpeedConfig(zero_stage=zero_stage, lora_rank=4)

    def states(algorithm: str) -> int:
        ppo = SETTINGS.ppo.model_copy(update={"algorithm": algorithm, "deepspeed": lora})
        need = memory.ppo_need(TOY, TOY, SETTINGS.model_copy(update={"ppo": ppo}), gpu_bytes=80 * GIB)
        return need.parts["weights and optimizer"]

    alone = memory.training(
        900, TOY.linear_widths, "bfloat16", DeepSpeedConfig(zero_stage=zero_stage, lora_rank=4)
    )
    assert states("ppo") - states("rloo") == alone.states - shared
