"""What tests with real engines share."""

from pathlib import Path

from limbeck.config import EngineConfig, ModelConfig, TeacherConfig
from limbeck.engine_process import EngineProcess
from limbeck.sampler import VllmSampler

ENGINE = EngineConfig(max_model_len=64, kv_cache_mib=64, enforce_eager=True)


def open_sampler(folder: Path) -> VllmSampler:
    """A vLLM engine in fp32 on a tiny checkpoint."""
    return VllmSampler(folder, ModelConfig(dtype="float32"), ENGINE)


def open_process(folder: Path, **settings: float) -> EngineProcess:
    """The same engine in a process of its own, as a teacher; engine settings can be given."""
    engine = EngineConfig.model_validate(ENGINE.model_dump() | settings)
    return EngineProcess(folder, TeacherConfig(dtype="float32"), engine)
