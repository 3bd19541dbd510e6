"""Whether a task fits its GPUs, and the smallest change of settings with which it does."""

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

from limbeck.config import GPU_STAGES, TRAIN_STAGES, Config
from limbeck.planning.rates import Rates
from limbeck.planning.speed import engine_of
from limbeck.planning.workload import Model, Work, num_processes
from limbeck.preflight import memory
from limbeck.preflight.memory import GIB, Need

Fits = Literal["yes", "perhaps", "no"]
"""Perhaps: what is certain fits, the estimate of the longest rows does not."""
WORSE: tuple[Fits, ...] = ("yes", "perhaps", "no")
Changes = dict[str, float]
"""Settings by their place, such as `sft.deepspeed.lora_rank`."""
LORA_RANK = 16
MANY_GPUS = (2, 4, 8, 16, 32, 64)
SHARES = (0.3, 0.4, 0.5, 0.6)


class Room(NamedTuple):
    """The memory of one GPU of a task."""

    need: Need
    gpu_bytes: int
    """What the task may take: an engine its share, a training all."""

    @property
    def fits(self) -> Fits:
        """Whether it does."""
        if self.need.likely <= self.gpu_bytes:
            return "yes"
        return "perhaps" if self.need.certain <= self.gpu_bytes else "no"


def room(
    work: Work, config: Config, models: Mapping[str, Model], gpu_bytes: int, num_gpus: int | None = None
) -> Room | None:
    """What a task needs; None where it has no GPU, or its model is a black box.

    Args:
        work: The task.
        config: The settings.
        models: By role.
        gpu_bytes: Memory of one GPU.
        num_gpus: GPUs that ZeRO splits a training over; None: one for each of its processes.
    """
    if work.stage not in GPU_STAGES or not work.request.gpus or work.is_black_box:
        return None
    if work.stage not in TRAIN_STAGES:
        engine, loaded = config.engine, loaded_models(work)
        if not loaded:
            return None
        needs = [memory.engine_need(model.shape, model.dtype, engine) for model in loaded]
        share = gpu_bytes if engine.kv_cache_mib else int(gpu_bytes * engine.gpu_memory_utilization)
        return Room(max(needs, key=lambda need: need.likely), share)
    num_gpus = num_gpus or num_processes(work, config)
    if work.stage == "sft":
        tuned = work.passed[0].model
        return Room(memory.sft_need(tuned.shape, tuned.dtype, config.sft, num_gpus), gpu_bytes)
    student, base = models["student"], models[config.reward.init]
    if work.stage == "reward":
        return Room(memory.reward_need(base.shape, base.dtype, config.reward, num_gpus), gpu_bytes)
    teacher = models.get("teacher")
    judge = teacher.shape if teacher and work.name.startswith("ppo_judge") else None
    need = memory.ppo_need(student.shape, base.shape, config, gpu_bytes, judge=judge, num_gpus=num_gpus)
    return Room(need, gpu_bytes)


def loaded_models(work: Work) -> list[Model]:
    """The models that a task without a training loads, one after another."""
    return [item.model for item in work.sampled if item.model]


def rollouts(config: Config, student: Model, gpu_bytes: int) -> Room:
    """PPO's engine in its share of the GPU."""
    engine = engine_of("ppo", config)
    share = gpu_bytes if engine.kv_cache_mib else int(gpu_bytes * engine.gpu_memory_utilization)
    return Room(memory.engine_need(student.shape, student.dtype, engine), share)


def fits(
    work: Work, config: Config, models: Mapping[str, Model], gpu_bytes: int, num_gpus: int | None = None
) -> Fits | None:
    """Whether a task fits, PPO's engine in its share as well; None where there is nothing to fit."""
    taken = room(work, config, models, gpu_bytes, num_gpus)
    if taken is None or work.stage != "ppo":
        return taken and taken.fits
    return max(taken.fits, rollouts(config, models["student"], gpu_bytes).fits, key=WORSE.index)


def smallest(work: Work, config: Config, models: Mapping[str, Model], gpu_bytes: int, rates: Rates) -> str:
    """The first settings that fit, and the smallest GPU of the table that holds the task as it is.

    They are tried in a fixed order, each on top of those that saved something before it: of a training PPO's
    share for vLLM, micro batch, recomputed activations, ZeRO 2, ZeRO 3, LoRA, then ZeRO 3 over more GPUs; of
    an engine more GPUs. What turns out not to be needed is left out again.
    """
    search = _of_training if work.stage in TRAIN_STAGES else _of_engine
    ways = [search(work, config, models, gpu_bytes)]
    larger = [
        (gpu.memory_gib, name)
        for name, gpu in rates.gpus.items()
        if fits(work, config, models, int(gpu.memory_gib * GIB)) == "yes"
    ]
    if larger:
        memory_gib, name = min(larger)
        ways.append(f"one {name} of {memory_gib:g} GiB as it is")
    return ", or ".join(filter(None, ways)) or "nothing that was tried"


def _of_training(work: Work, config: Config, models: Mapping[str, Model], gpu_bytes: int) -> str:
    """The first settings of a training that fit; nothing where none do."""

    def enough(changes: Changes, num_gpus: int | None = None) -> bool:
        return fits(work, _changed(config, changes), models, gpu_bytes, num_gpus) == "yes"

    def need(changes: Changes) -> int:
        taken = room(work, _changed(config, changes), models, gpu_bytes)
        return taken.need.likely if taken else 0

    changes: Changes = {}
    if work.stage == "ppo":
        for share in SHARES:
            if rollouts(_changed(config, changes), models["student"], gpu_bytes).fits == "yes":
                break
            changes = {"ppo.gpu_memory_utilization": share}
    for place, value in _steps(work.stage, config):
        tried = changes | {place: value}
        if need(tried) < need(changes):
            changes = tried
        if enough(changes):
            return _words(_pruned(changes, enough))
    split = changes | {f"{work.stage}.deepspeed.zero_stage": 3}
    for num_gpus in MANY_GPUS:
        if enough(split, num_gpus):
            return f"{_words(split)} and resources.{work.stage}.gpus {num_gpus}"
    return ""


def _steps(stage: str, config: Config) -> Iterator[tuple[str, float]]:
    """Each change of a training, in the order of trying."""
    rows = getattr(config, stage).rows_at_once
    unit = 2 if stage == "reward" else 1  # half from each source
    while rows % (2 * unit) == 0:
        rows //= 2
        yield f"{stage}.micro_batch_size", rows
    yield f"{stage}.deepspeed.gradient_checkpointing", True
    yield f"{stage}.deepspeed.zero_stage", 2
    yield f"{stage}.deepspeed.zero_stage", 3
    yield f"{stage}.deepspeed.lora_rank", LORA_RANK


def _of_engine(work: Work, config: Config, models: Mapping[str, Model], gpu_bytes: int) -> str:
    """Over how many GPUs an engine fits; nothing where it does over none that its heads allow."""
    place, heads = "engine.tensor_parallel_size", [model.shape.heads for model in loaded_models(work)]
    for parts in MANY_GPUS:
        split = parts > config.engine.tensor_parallel_size and not any(number % parts for number in heads)
        if split and fits(work, _changed(config, {place: parts}), models, gpu_bytes) == "yes":
            smaller = _changed(config, {place: parts}).engine
            return (
                f"{place} {parts} and resources.{work.stage}.gpus {smaller.gpus * smaller.data_parallel_size}"
            )
    return ""


def _pruned(changes: Changes, enough: Callable[[Changes], bool]) -> Changes:
    """The changes without those that are not needed."""
    for place in list(changes):
        fewer = {name: value for name, value in changes.items() if name != place}
        if enough(fewer):
            changes = fewer
    return changes


def _changed(config: Config, changes: Changes) -> Config:
    """The settings with some changed."""
    for place, value in changes.items():
        stage, *inner, name = place.split(".")
        section = getattr(config, stage)
        if inner:
            deepspeed = section.deepspeed.model_copy(update={name: value})
            section = section.model_copy(update={"deepspeed": deepspeed})
        else:
            section = section.model_copy(update={name: value})
        config = config.model_copy(update={stage: section})
    return config


def _words(changes: Changes) -> str:
    """Changes as a run file writes them."""
    return ", ".join(f"{place}: {str(value).lower()}" for place, value in changes.items())
