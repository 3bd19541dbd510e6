"""What the plan reads off a config.json against what torch and vLLM really make of it, on a CPU."""

from pathlib import Path
from typing import Any

import pytest
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from limbeck.config import EngineConfig, ModelConfig
from limbeck.planning.sizes import read_model
from limbeck.preflight import memory
from limbeck.preflight.models import check_model
from limbeck.preflight.places import Place
from limbeck.sampler import VllmSampler
from tests import tiny

MODELS: dict[str, tuple[Any, Any]] = {
    "Llama": (LlamaConfig, LlamaForCausalLM),
    "Mistral": (MistralConfig, MistralForCausalLM),
    "Qwen 2": (Qwen2Config, Qwen2ForCausalLM),
    "Qwen 3": (Qwen3Config, Qwen3ForCausalLM),
    "Gemma": (GemmaConfig, GemmaForCausalLM),
}
SIZES = {
    "vocab_size": 64,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "with a head of its own"])
@pytest.mark.parametrize("name", MODELS)
def test_sizes_by_config_alone_are_those_of_the_tensors(name: str, tied: bool, tmp_path: Path) -> None:
    config, model = MODELS[name]
    model(config(**SIZES, tie_word_embeddings=tied)).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    counted, findings = check_model(Place("student", str(tmp_path), None), ModelConfig(), "config.student")
    assert findings == []
    assert counted is not None
    read = read_model(Place("student", str(tmp_path), None))
    assert read.shape == counted.shape


@pytest.mark.parametrize(
    ("layers", "kv_heads"), [(1, 4), (3, 2)], ids=["one layer", "three layers with grouped queries"]
)
def test_tokens_in_the_cache_of_a_real_engine(layers: int, kv_heads: int, tmp_path: Path) -> None:
    sizes = SIZES | {"num_hidden_layers": layers, "num_key_value_heads": kv_heads, "head_dim": 32}
    LlamaForCausalLM(LlamaConfig(**sizes)).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    shape = read_model(Place("student", str(tmp_path), None)).shape
    assert shape is not None
    engine = EngineConfig(max_model_len=64, max_num_seqs=4, kv_cache_mib=256, enforce_eager=True)
    llm = VllmSampler(tmp_path, ModelConfig(dtype="float32"), engine)._llm
    cache = llm.llm_engine.vllm_config.cache_config
    tokens = cache.num_gpu_blocks * cache.block_size
    runner = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner
    storages = [tensor.untyped_storage() for tensor in runner.kv_caches]  # layers may share one
    allocated = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
    llm.llm_engine.engine_core.shutdown()
    assert allocated == pytest.approx(256 << 20, rel=0.1)
    assert memory.kv_cache(shape, "float32", tokens) == pytest.approx(allocated, rel=0.1)
    held = memory.sequences(shape, "float32", engine, gpu_bytes=0) * engine.max_model_len
    assert held == pytest.approx(tokens, rel=0.1)
