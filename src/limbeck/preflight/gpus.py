"""Checks of GPUs: how many, how a model is split over them, and whether it fits."""

import shutil
import subprocess
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

from limbeck import refining
from limbeck.config import (
    GPU_STAGES,
    TRAIN_STAGES,
    Config,
    DeepSpeedConfig,
    Dtype,
    PpoConfig,
    RewardConfig,
    SftConfig,
)
from limbeck.errors import ConfigError
from limbeck.preflight import memory
from limbeck.preflight.asked import ABLATION, Asked
from limbeck.preflight.findings import Finding, collected, warning
from limbeck.preflight.memory import GIB, Need, Shape
from limbeck.preflight.models import ModelFacts
from limbeck.resources import StageRequest, processes_of_node
from limbeck.section import parse

SAMPLING_STAGES = ("generate", "judge", "ppo", "evaluate")
NVIDIA_SMI_SECONDS = 10
SMALLER = {
    "sft": "Lower sft.micro_batch_size or sft.max_length, set sft.deepspeed.gradient_checkpointing or "
    "lora_rank",
    "reward": "Lower reward.micro_batch_size or reward.max_length, set "
    "reward.deepspeed.gradient_checkpointing or lora_rank",
    "ppo": "Lower ppo.gpu_memory_utilization or set engine.kv_cache_mib (vLLM takes its share first; the "
    "reward judge takes ppo.judge_gpu_memory_utilization too), "
    "lower ppo.micro_batch_size or engine.max_model_len (where transformers samples also "
    "engine.max_num_seqs), set ppo.deepspeed.gradient_checkpointing or "
    "lora_rank",
    "rollouts": "Raise ppo.gpu_memory_utilization, lower engine.max_model_len or engine.max_num_seqs",
    "judge": "Raise ppo.judge_gpu_memory_utilization, lower engine.max_model_len or engine.max_num_seqs",
    "sampling": "Raise engine.tensor_parallel_size with `gpus`, lower engine.max_model_len or "
    "engine.max_num_seqs",
}


SIZES = "tensor_parallel_size x pipeline_parallel_size x data_parallel_size"


def settled(
    config: Config, requests: Mapping[str, StageRequest], stages: Collection[str]
) -> tuple[Config, list[Finding]]:
    """The settings with the processes of each training said, and what does not go with so many.

    Args:
        config: The settings.
        requests: What the tasks of each stage ask for.
        stages: Those that run.
    """
    findings: list[Finding] = []
    for stage in (name for name in TRAIN_STAGES if name in stages):
        section: SftConfig | RewardConfig | PpoConfig = getattr(config, stage)
        number = processes_of_node(section.deepspeed, requests[stage])
        values = section.model_dump()
        values["deepspeed"]["processes"] = number
        with collected(findings):
            said = parse(type(section), values, f"config.{stage} with {number} processes on a node")
            config = config.model_copy(update={stage: said})
            if stage == "ppo":
                refining.check_engines(config, number)
    return config, findings


def num_gpus(stage: str, config: Config) -> int:
    """How many GPUs a task of a stage uses, once its processes are `settled`.

    A training has one for each process; PPO's engine shares them, or has more than one process.
    """
    if stage in TRAIN_STAGES:
        processes: int = getattr(config, stage).deepspeed.processes or 1
        return max(processes, config.engine.gpus) if stage == "ppo" else processes
    return config.engine.gpus * config.engine.data_parallel_size


def check_counts(asked: Asked, config: Config, requests: Mapping[str, StageRequest]) -> list[Finding]:
    """Each stage has as many GPUs as it uses by `settled` settings; stages that fare alike share a line."""
    alike: dict[tuple[int, int], list[str]] = defaultdict(list)
    for stage in GPU_STAGES:
        if asked.runs(stage) and requests[stage].gpus:
            alike[requests[stage].gpus, num_gpus(stage, config)].append(stage)
    findings = []
    for (gpus, used), stages in alike.items():
        where = f"GPUs of {', '.join(stages)}: parameter gpus, or resources.STAGE.gpus"
        if gpus < used:
            error = ConfigError(
                "fewer GPUs than the engine or the processes want",
                where=where,
                expected=f"{used} ({SIZES} of config.engine; processes of a training)",
                got=str(gpus),
                remedy="Raise the one or lower the other",
            )
            findings.append(Finding(error))
        elif gpus > used:
            error = ConfigError(
                f"{gpus - used} of {gpus} GPUs will stand idle",
                where=where,
                expected=str(used),
                got=str(gpus),
                remedy=f"Ask for fewer: sampling uses {SIZES} of engine, a training one for each process",
            )
            findings.append(warning(error))
    return findings + _on_cpus(asked, config, requests)


def _on_cpus(asked: Asked, config: Config, requests: Mapping[str, StageRequest]) -> list[Finding]:
    """Stages without a GPU work, slowly with bfloat16."""
    roles = ("student",) if asked.asks_a_server else ("teacher", "student")
    loaded = [stage for stage in GPU_STAGES if not (asked.asks_a_server and stage == "judge")]
    stages = [stage for stage in loaded if stage in asked.stages and requests[stage].gpus == 0]
    slow = [role for role in roles if getattr(config, role).dtype == "bfloat16"]
    if not stages or not slow:
        return []
    error = ConfigError(
        "bfloat16 on CPUs, which most of them compute slowly",
        where=" and ".join(f"config.{role}.dtype" for role in slow),
        got=f"0 GPUs for {', '.join(stages)}",
        remedy="Set dtype: float32, or give GPUs",
    )
    return [warning(error)]


def check_split(facts: ModelFacts, config: Config) -> list[Finding]:
    """Attention heads can be shared out among the GPUs of the engine.

    Source: vLLM 0.32, config/model.py, `verify_with_parallel_config`, and its linear layers.
    """
    split, a = config.engine.tensor_parallel_size, facts.architecture
    heads, kv_heads = a.num_attention_heads, a.num_key_value_heads
    uneven = ["attention"] if heads and heads % split else []
    if kv_heads and kv_heads % split and split % kv_heads:
        uneven.append("key-value")
    return [
        Finding(
            ConfigError(
                f"{kind} heads that cannot be shared out evenly",
                where=f"config.engine.tensor_parallel_size for {facts.place.path}",
                expected=f"a divisor of {heads if kind == 'attention' else kv_heads}",
                got=str(split),
                remedy="Take another tensor_parallel_size",
            )
        )
        for kind in uneven
    ]


def gpu_bytes(config: Config) -> int | None:
    """Memory of one GPU: as the settings say, else of the smallest one of this machine; None without any."""
    if config.engine.gpu_memory_gib is not None:
        return int(config.engine.gpu_memory_gib * GIB)
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        answer = subprocess.run(
            [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            check=True,
            timeout=NVIDIA_SMI_SECONDS,
        ).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    sizes = [int(size) << 20 for size in answer if size.isdecimal()]
    return min(sizes, default=None)


def check_kv_cache(facts: ModelFacts, dtype: Dtype, config: Config) -> list[Finding]:
    """A KV cache of fixed size holds one sequence; needs no GPU to know."""
    engine = config.engine
    if engine.kv_cache_mib is None or facts.shape is None:
        return []
    need = memory.kv_cache(facts.shape, dtype, engine.max_model_len, engine)
    if need <= engine.kv_cache_mib << 20:
        return []
    error = ConfigError(
        "a KV cache too small for one sequence",
        where=f"config.engine.kv_cache_mib for {facts.place.path}",
        expected=f"at least {-(-need >> 20)} for engine.max_model_len {engine.max_model_len}",
        got=str(engine.kv_cache_mib),
        remedy="Raise it, or lower engine.max_model_len",
    )
    return [Finding(error)]


def check_sampling(facts: ModelFacts, dtype: Dtype, config: Config, size: int) -> list[Finding]:
    """An engine fits its share of a GPU."""
    if facts.shape is None:
        return []
    need = memory.engine_need(facts.shape, dtype, config.engine)
    share = size if config.engine.kv_cache_mib else int(size * config.engine.gpu_memory_utilization)
    return _judge(need, share, f"sampling with {facts.place.path}", SMALLER["sampling"])


def check_training(
    asked: Asked, config: Config, student: Shape | None, teacher: Shape | None, size: int
) -> list[Finding]:
    """Each training of the run fits each of its GPUs, by `settled` settings."""
    findings = []
    for stage, need in _trainings(asked, config, student, teacher, size):
        findings += _judge(need, size, f"stage {stage}", SMALLER[stage])
    by_vllm = config.ppo.sampler == "vllm"
    if asked.runs("ppo") and student and by_vllm and not config.engine.kv_cache_mib:
        need = memory.engine_need(student, config.student.dtype, config.engine)
        share = int(size * config.ppo.gpu_memory_utilization)
        findings += _judge(need, share, "rollouts of stage ppo", SMALLER["rollouts"])
    if asked.judges_rollouts and teacher and not config.engine.kv_cache_mib:
        need = memory.engine_need(teacher, config.teacher.dtype, config.engine)
        share = int(size * config.ppo.judge_gpu_memory_utilization)
        findings += _judge(need, share, "the judge of stage ppo", SMALLER["judge"])
    return findings


def _trainings(
    asked: Asked, config: Config, student: Shape | None, teacher: Shape | None, size: int
) -> Iterator[tuple[str, Need]]:
    """What the training stages of the run need, as far as their models are known."""
    from_teacher = config.reward.init == "teacher"
    base = teacher if from_teacher else student
    dtype = config.teacher.dtype if from_teacher else config.student.dtype
    if asked.runs("sft") and student:
        yield "sft", memory.sft_need(student, config.student.dtype, config.sft, _split(config.sft.deepspeed))
    if asked.runs(ABLATION) and teacher:
        yield "sft", memory.sft_need(teacher, config.teacher.dtype, config.sft, _split(config.sft.deepspeed))
    if asked.runs("reward") and base:
        yield "reward", memory.reward_need(base, dtype, config.reward, _split(config.reward.deepspeed))
    if asked.runs("ppo") and student and base:
        judge = teacher if asked.judges_rollouts else None
        split = _split(config.ppo.deepspeed)
        yield "ppo", memory.ppo_need(student, base, config, size, judge=judge, num_gpus=split)


def _split(deepspeed: DeepSpeedConfig) -> int:
    """Over how many processes ZeRO splits a training."""
    return deepspeed.nodes * (deepspeed.processes or 1)


def _judge(need: Need, size: int, where: str, remedy: str) -> list[Finding]:
    """An error when what is certain does not fit, a warning when the estimate does not."""
    if need.likely <= size:
        return []
    parts = ", ".join(f"{name} {_gib(part)}" for name, part in need.parts.items())
    certain = need.certain > size
    error = ConfigError(
        "too little GPU memory" if certain else "GPU memory may be too small for the longest rows",
        where=where,
        expected=f"{_gib(need.certain if certain else need.likely)} GiB ({parts})",
        got=f"{_gib(size)} GiB",
        remedy=f"{remedy}, or take a larger GPU",
    )
    return [Finding(error) if certain else warning(error)]


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}"
