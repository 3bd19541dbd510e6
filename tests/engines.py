"""What tests with real engines share."""

from pathlib import Path

from limbeck.config import EngineConfig, ModelConfig
from limbeck.sampler import VllmSampler

ENGINE = EngineConfig(max_model_len=64, kv_cache_mib=64, enforce_eager=True)


def open_sampler(folder: Path) -> VllmSampler:
    """A vLLM engine in fp32 on a tiny checkpoint."""
    return VllmSampler(folder, ModelConfig(dtype="float32"), ENGINE)
