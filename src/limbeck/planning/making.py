"""From a run file to a plan."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from limbeck.compiled import Compiled
from limbeck.config import GPU_STAGES, Config
from limbeck.errors import ConfigError
from limbeck.planning.asked import Given, count_asked
from limbeck.planning.fit import fits, room, smallest
from limbeck.planning.model import Plan, PlanFinding, PlannedTask
from limbeck.planning.rates import Gpu, Prices, Rates
from limbeck.planning.sizes import read_model
from limbeck.planning.speed import engine_of, flops, seconds
from limbeck.planning.stored import stored
from limbeck.planning.workload import TRAININGS, Model, Run, Work, accepted, check_pipeline, tasks
from limbeck.preflight import Asked, Finding, context, gpus, memory, store
from limbeck.preflight.memory import GIB
from limbeck.preflight.models import ModelFacts
from limbeck.preflight.places import Place, is_stored
from limbeck.preflight.probes import ProbedStore
from limbeck.resources import StageRequest, requests
from limbeck.run_file import RunFile, refusals

HOUR = 3600
GB = 1e9
ANSWERING = (("generate", "teacher"), ("judge", "judge"))
"""Whose GPU-hours the accepted completions are divided by."""
UNCOUNTED = (
    "all tasks of a step have their GPUs at once; starts, downloads, padding and retries are not counted",
    "every prompt gets a label; stored bytes are before compression",
)


@dataclass(frozen=True)
class Wish:
    """What a plan is asked for, beside the run file."""

    given: Given
    gpu: str
    rates: Rates
    prices: Prices | None = None
    folders: Mapping[str, str] = field(default_factory=dict)
    """Where the config.json of `teacher` or `student` lies, if not where the run file says."""


def make_plan(run_file: RunFile, pipeline: Compiled, wish: Wish) -> Plan:
    """Plan a run of a pipeline.

    Raises:
        ConfigError: when the pipeline, the GPU or its price is not known, a folder is not there, or the
            prompts cannot be counted.
        DataError: when a model or a data set cannot be read.
        StorageError: when the store cannot be used.
    """
    name = pipeline.spec["pipelineInfo"]["name"]
    check_pipeline(name)
    gpu, config, stages = wish.rates.gpu(wish.gpu), run_file.config, tuple(pipeline.stages)
    # The smaller: a run file may say less, for a part of a GPU.
    gpu_bytes = int(min(config.engine.gpu_memory_gib or gpu.memory_gib, gpu.memory_gib) * GIB)
    facts = _facts(run_file, stages, wish.folders)
    models = {name: Model(item.shape, config.model(name).dtype) for name, item in facts.items() if item.shape}
    asks = requests(run_file.resources, run_file.gpus, black_box=config.asks_a_server("teacher"))
    run = Run(
        run_file=run_file,
        stages=stages,
        # `distill_minimal` takes no choice of rewards: it has its own.
        ppo_rewards=run_file.ppo_rewards if "ppo_rewards" in pipeline.parameters else ("model", "mixed"),
        requests=asks,
        models=models,
        asked=count_asked(run_file, wish.given, trains="judge" in stages or "ppo" in stages),
    )
    planned = tuple(_planned(work, run, gpu, gpu_bytes, wish) for work in tasks(run))
    findings = [Finding(error) for error in refusals(run_file, pipeline)]
    findings += _findings(run_file, pipeline, facts, asks, gpu_bytes)
    return _summed(name, run, planned, findings, gpu_bytes, wish)


def _facts(run_file: RunFile, stages: Sequence[str], folders: Mapping[str, str]) -> dict[str, ModelFacts]:
    """The models of the run that have weights, by role or, where models are only evaluated, by folder."""
    config, named = run_file.config, {}
    judges = "judge" in stages or ("ppo" in stages and "judge" in run_file.ppo_rewards)
    if judges or ("reward" in stages and config.reward.init == "teacher"):
        named["teacher"] = folders.get("teacher") or run_file.teacher
    if "sft" in stages or "ppo" in stages:
        own = run_file.student if "sft" in stages else run_file.checkpoint
        named["student"] = folders.get("student") or own
    if not named:
        named = {path.rstrip("/").rpartition("/")[2]: path for path in run_file.models}
    return {name: _read(name, path) for name, path in named.items() if not config.asks_a_server(name)}


def _read(name: str, path: str) -> ModelFacts:
    """One model by its config.json."""
    stored_there = is_stored(path)
    if not path or ("://" in path and not stored_there) or (stored_there and store.is_nowhere()):
        raise ConfigError(
            f"the sizes of the model `{name}` are out of reach",
            where=path or f"parameter {name}",
            expected="a folder with its config.json, here or in the store of the AWS_* variables",
            remedy="Give a folder that holds it: --teacher DIR or --student DIR",
        )
    return read_model(Place(name, path, ProbedStore() if stored_there else None))


def _planned(work: Work, run: Run, gpu: Gpu, gpu_bytes: int, wish: Wish) -> PlannedTask:
    """All figures of one task."""
    config = run.config
    taken, fit = room(work, config, run.models, gpu_bytes), fits(work, config, run.models, gpu_bytes)
    took = None if fit == "no" else seconds(work, config, gpu, wish.rates, gpu_bytes)
    nodes = getattr(config, work.stage).deepspeed.nodes if work.stage in TRAININGS else 1
    hours = (took or 0.0) * work.num_tasks * work.request.gpus * nodes / HOUR
    trained = run.base if work.stage == "reward" else run.models.get("student")
    kept = stored(work, config, run.asked, trained if work.stage in TRAININGS else None, took)
    prompt_tokens = sum(item.prefilled for item in work.sampled)
    completion_tokens = sum(item.requests * item.completion_tokens for item in work.sampled)
    sampled = work.sampled[0].model if work.sampled and work.request.gpus else None
    engine = engine_of(work.stage, config)
    smaller = ""
    if fit in ("perhaps", "no"):
        smaller = smallest(work, config, run.models, gpu_bytes, wish.rates)
    return PlannedTask(
        task=work.task,
        stage=work.stage,
        name=work.name,
        step=work.step,
        num_tasks=work.num_tasks,
        gpus=work.request.gpus,
        prompt_tokens=round(prompt_tokens),
        completion_tokens=round(completion_tokens),
        trained_tokens=round(sum(item.tokens for item in work.passed if item.passes > 1)),
        flops=flops(work),
        memory=taken.need.parts if taken else {},
        memory_bytes=taken.need.likely if taken else 0,
        certain_bytes=taken.need.certain if taken else 0,
        room_bytes=taken.gpu_bytes if taken else 0,
        sequences=memory.sequences(sampled.shape, sampled.dtype, engine, gpu_bytes) if sampled else None,
        fits=fit,
        smallest=smaller,
        seconds=took,
        gpu_hours=hours,
        bytes=kept.bytes,
        objects=kept.objects,
        cost=hours * wish.prices.of_gpu(wish.gpu) if wish.prices else None,
        api_cost=_api_cost(work, config),
    )


def _api_cost(work: Work, config: Config) -> float | None:
    """What a black box costs, where its prices are known."""
    server, asked = config.openai, [item for item in work.sampled if item.model is None]
    if not asked or server.prompt_price is None or server.completion_price is None:
        return None
    prompt_tokens = sum(item.prefilled for item in asked)
    completion_tokens = sum(item.requests * item.completion_tokens for item in asked)
    return (prompt_tokens * server.prompt_price + completion_tokens * server.completion_price) / 1e6


def _findings(
    run_file: RunFile,
    pipeline: Compiled,
    facts: Mapping[str, ModelFacts],
    asks: Mapping[str, StageRequest],
    gpu_bytes: int,
) -> Iterator[Finding]:
    """What preflight would say of lengths, GPUs and memory."""
    config = run_file.config
    given = run_file.model_dump(mode="json", include=set(Asked.__dataclass_fields__))
    asked = Asked(stages=pipeline.stages, gold_labels=pipeline.gold_labels, **given)
    on_gpus = Asked(stages=[s for s in GPU_STAGES if asked.runs(s) and asks[s].gpus], **given)
    yield from context.check_lengths(asked, config)
    yield from gpus.check_counts(asked, config, asks)
    for name, item in facts.items():
        dtype = config.model(name).dtype
        yield from context.check_context(item, config)
        yield from gpus.check_split(item, config)
        yield from gpus.check_kv_cache(item, dtype, config)
        if on_gpus.stages:
            yield from gpus.check_sampling(item, dtype, config, gpu_bytes)
    if student := facts.get("student"):
        yield from context.check_row_lengths(student, asked, config)
    shapes = {name: item.shape for name, item in facts.items()}
    yield from gpus.check_training(on_gpus, config, shapes.get("student"), shapes.get("teacher"), gpu_bytes)


def _summed(
    pipeline: str,
    run: Run,
    planned: Sequence[PlannedTask],
    findings: Sequence[Finding],
    gpu_bytes: int,
    wish: Wish,
) -> Plan:
    """The plan with its sums."""
    steps: dict[int, float] = defaultdict(float)
    for task in planned:
        steps[task.step] = max(steps[task.step], task.seconds or 0.0)
    prices, asked = wish.prices, run.asked
    stored_bytes = sum(task.bytes for task in planned)
    trains = any(task.stage == "sft" for task in planned)
    good = accepted(run) if trains else 0.0
    answering = sum(task.gpu_hours for task in planned if (task.stage, task.name) in ANSWERING)
    api_costs = [task.api_cost for task in planned if task.api_cost is not None]
    notes = list(asked.notes)
    if trains:
        notes.append(f"{asked.given.accepted_share:.0%} of the teacher's completions are selected (assumed)")
    unknown = [task.task for task in planned if task.seconds is None]
    if unknown:
        notes.append(f"no time is known of {', '.join(unknown)}: it counts as 0")
    return Plan(
        pipeline=pipeline,
        gpu=wish.gpu,
        gpu_memory_gib=gpu_bytes / GIB,
        rates_source=wish.rates.gpu(wish.gpu).source,
        tasks=tuple(planned),
        assumptions=(*notes, *UNCOUNTED),
        findings=tuple(
            PlanFinding(severity=item.severity, text=str(item.error))
            for item in {str(finding): finding for finding in findings}.values()
        ),
        hours=sum(steps.values()) / HOUR,
        gpu_hours=sum(task.gpu_hours for task in planned),
        bytes=stored_bytes,
        objects=sum(task.objects for task in planned),
        accepted=good,
        accepted_per_gpu_hour=good / answering if answering and good else None,
        cost=sum(task.cost or 0.0 for task in planned) if prices else None,
        storage_cost=stored_bytes / GB * prices.storage_gb_month if prices else None,
        currency=prices.currency if prices else "",
        price_source=prices.source if prices else "",
        api_cost=sum(api_costs) if api_costs else None,
        api_price_source=run.config.openai.price_source,
    )
