"""The plan's arithmetic against figures that others have published."""

import json
from pathlib import Path

import pytest

from limbeck.config import DeepSpeedConfig, EngineConfig
from limbeck.errors import ConfigError, DataError
from limbeck.planning.flops import forward, multiplied, passes
from limbeck.planning.rates import load_rates
from limbeck.planning.sizes import read_model, shape_of
from limbeck.planning.speed import sampling_seconds
from limbeck.planning.workload import Model, Sampled
from limbeck.preflight import memory
from limbeck.preflight.memory import GIB
from limbeck.preflight.models import Architecture
from limbeck.preflight.places import Place

PAPER = Path("examples/paper/models")
LLAMA_2_7B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "vocab_size": 32000, "tie_word_embeddings": False,
}  # fmt: skip
LLAMA_2_70B = LLAMA_2_7B | {
    "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
    "num_key_value_heads": 8,
}  # fmt: skip
QWEN_3_0_6B = {
    "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
    "tie_word_embeddings": True,
}  # fmt: skip
OPT_13B = {
    "model_type": "opt", "hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40,
    "vocab_size": 50272,
}  # fmt: skip


def shape(sizes: dict[str, object]) -> memory.Shape:
    return shape_of(Architecture.model_validate(sizes), 0, "made here")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # The totals that the model cards' safetensors metadata give.
        ("Llama-3.1-8B-Instruct", 8_030_261_248),
        ("Llama-3.2-1B-Instruct", 1_235_814_400),
        ("Qwen2.5-7B-Instruct", 7_615_616_512),
        ("Qwen2.5-0.5B-Instruct", 494_032_768),
    ],
)
def test_the_models_of_the_paper_have_as_many_weights_as_published(name: str, parameters: int) -> None:
    facts = read_model(Place("student", str(PAPER / name), None))
    assert facts.shape is not None
    assert facts.shape.parameters == parameters
    assert facts.shape.stored_bytes == 2 * parameters


@pytest.mark.parametrize(
    ("sizes", "parameters"),
    [(LLAMA_2_7B, 6_738_415_616), (LLAMA_2_70B, 68_976_648_192), (QWEN_3_0_6B, 596_049_920)],
    ids=["Llama 2 7B", "Llama 2 70B", "Qwen 3 0.6B"],
)
def test_models_of_other_kinds_have_as_many_weights_as_published(
    sizes: dict[str, object], parameters: int
) -> None:
    assert shape(sizes).parameters == parameters


@pytest.mark.parametrize(
    ("zero_stage", "gigabytes"),
    # Rajbhandari et al. 2019 (arXiv 1910.02054), figure 1: 7.5 billion weights on 64 GPUs, K = 12.
    [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.9)],
    ids=["baseline", "optimizer split", "and gradients", "and weights"],
)
def test_zero_paper_on_64_gpus(zero_stage: int, gigabytes: float) -> None:
    config = DeepSpeedConfig.model_validate({"zero_stage": zero_stage})
    trained = memory.training(7_500_000_000, 0, "bfloat16", config, num_gpus=64)
    bucket = memory.REDUCE_BUCKET * 2 if zero_stage == 3 else 0
    assert (trained.states + trained.gradients - bucket) / 1e9 == pytest.approx(gigabytes, abs=0.05)


def test_a_model_of_7_billion_weights_takes_16_bytes_each_in_mixed_precision() -> None:
    # Rajbhandari et al. 2019, section 3.1: 16 bytes a weight, 112 GB for 7 billion.
    trained = memory.training(7_000_000_000, 0, "bfloat16", DeepSpeedConfig(zero_stage=0))
    assert trained.states + trained.gradients == 112_000_000_000


@pytest.mark.parametrize(
    ("sizes", "kilobytes"),
    [
        (OPT_13B, 800),  # Kwon et al. 2023 (arXiv 2309.06180), section 3: 2 x 5120 x 40 x 2 bytes
        (LLAMA_2_7B, 512),  # 2 x 4096 x 32 x 2 bytes
        (LLAMA_2_70B, 320),  # grouped queries (Touvron et al. 2023, arXiv 2307.09288): 2 x 8 x 128 x 80 x 2
    ],
    ids=["OPT 13B, the PagedAttention paper", "Llama 2 7B", "Llama 2 70B"],
)
def test_kv_cache_of_a_token(sizes: dict[str, object], kilobytes: int) -> None:
    assert memory.kv_cache(shape(sizes), "bfloat16", 1) == kilobytes << 10


def test_flops_of_a_published_training() -> None:
    """LLaMA 65B: 380 tokens/s a GPU on A100s (Touvron et al. 2023, arXiv 2302.13971, section 2.4)."""
    sizes = LLAMA_2_70B | {"intermediate_size": 22016, "num_key_value_heads": 64}
    once = forward(shape(sizes), 380, 1024, head=True)
    reached = 3 * once / 312e12
    assert reached == pytest.approx(0.5, abs=0.03)  # between the 44% and 52% of Megatron-LM
    assert load_rates(None).gpu("A100-80GB").training <= reached


@pytest.mark.parametrize(
    ("together", "prompt", "completion", "published"),
    [
        # LMDeploy 0.1, Llama 2 7B on one A100 80 GB; `rates.yaml` has the address.
        (16, 2048, 2048, 601.63),
        (32, 2048, 2048, 733.34),
        (64, 1, 128, 4154.81),
        (64, 128, 128, 3024.07),
        (64, 128, 2048, 1852.06),
        # LMDeploy 0.2, the same page: 14.556 conversations a second, 6,981 tokens read or written.
        (256, 247, 233, 3387.42),
    ],
)
def test_an_engine_writes_about_as_fast_as_published(
    together: int, prompt: int, completion: int, published: float
) -> None:
    rates, requests = load_rates(None), max(together, 3000 if together == 256 else 0)
    asked = Sampled(Model(shape(LLAMA_2_7B), "bfloat16"), requests, prompt, completion, requests * prompt)
    engine = EngineConfig(max_model_len=4096, max_num_seqs=together)
    took = sampling_seconds(asked, engine, rates.gpu("A100-80GB"), rates, 80 * GIB)
    assert took is not None
    assert requests * completion / took == pytest.approx(published, rel=0.26)


def test_tokens_are_multiplied_with_all_weights_but_the_embedding() -> None:
    tied, apart = shape(QWEN_3_0_6B), shape(QWEN_3_0_6B | {"tie_word_embeddings": False})
    embedding = 151936 * 1024
    assert multiplied(tied, head=True) == tied.parameters
    assert multiplied(apart, head=True) == tied.parameters
    assert multiplied(apart, head=False) == multiplied(tied, head=False) == tied.parameters - embedding


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"gradient_checkpointing": False}, 3),
        ({"gradient_checkpointing": True}, 4),
        ({"gradient_checkpointing": False, "lora_rank": 8}, 2),
        ({"gradient_checkpointing": True, "lora_rank": 8}, 3),
    ],
    ids=["forward and backward", "recomputed", "LoRA", "LoRA, recomputed"],
)
def test_forward_passes_of_a_trained_token(settings: dict[str, int], expected: int) -> None:
    assert passes(DeepSpeedConfig.model_validate(settings)) == expected


@pytest.mark.parametrize(
    ("sizes", "error", "said"),
    [
        (LLAMA_2_7B | {"num_local_experts": 8}, ConfigError, "mixture of experts"),
        ({"model_type": "llama"}, DataError, "without the sizes"),
        (LLAMA_2_7B | {"quantization_config": {"bits": 4}}, DataError, "without its weights"),
        (LLAMA_2_7B | {"hidden_size": -1}, DataError, "describes no model"),
    ],
    ids=["a mixture of experts", "no sizes", "quantized weights that are not there", "a negative size"],
)
def test_a_model_whose_sizes_are_not_known_is_refused(
    sizes: dict[str, object], error: type[Exception], said: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    with pytest.raises(error, match=said):
        read_model(Place("student", str(tmp_path), None))
