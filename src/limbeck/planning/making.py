"""From a run file to a plan."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from limbeck.compiled import Compiled
from limbeck.config import GPU_STAGES, TRAIN_STAGES, Config
from limbeck.errors import ConfigError
from limbeck.planning.ablation import compared_rows
from limbeck.planning.asked import Asked as Counted
from limbeck.planning.asked import Given, count_asked
from limbeck.planning.fit import fits, room, smallest
from limbeck.planning.model import Plan, PlanFinding, PlannedTask
from limbeck.planning.outline import Outline, outline
from limbeck.planning.rates import Prices, Rates
from limbeck.planning.sizes import read_model
from limbeck.planning.speed import engine_of, flops, seconds
from limbeck.planning.stored import stored
from limbeck.planning.workload import Model, Run, Work, accepted, check_pipeline, tasks
from limbeck.preflight import Asked, Finding, context, gpus, memory, store
from limbeck.preflight.asked import ABLATION, judges
from limbeck.preflight.memory import GIB
from limbeck.preflight.models import ModelFacts
from limbeck.preflight.places import Place, is_stored
from limbeck.preflight.probes import ProbedStore
from limbeck.preflight.world import further_models
from limbeck.resources import parse_resources, requests
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

    rates: Rates
    given: Given = field(default_factory=Given)
    gpu: str = ""
    """By default the one of `report.gpu`."""
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
    asked, config = _asked(run_file, pipeline), run_file.config
    facts = _facts(asked, config, wish.folders)
    outlined = outline(asked, facts)
    plan = planned(outlined, config, count_asked(run_file, wish.given, trains=outlined.trains), wish)
    findings = [Finding(error) for error in refusals(run_file, pipeline)]
    findings += _findings(asked, config, facts, int(plan.gpu_memory_gib * GIB))
    told = tuple(
        PlanFinding(severity=item.severity, text=str(item.error))
        for item in {str(finding): finding for finding in findings}.values()
    )
    return plan.model_copy(update={"pipeline": name, "findings": told})


def outline_of(run_file: RunFile, pipeline: Compiled) -> Outline:
    """What `preflight` would write of a run.

    Raises:
        ConfigError: when the sizes of a model are out of reach.
        DataError: when a model cannot be read.
        StorageError: when the store cannot be used.
    """
    asked = _asked(run_file, pipeline)
    return outline(asked, _facts(asked, run_file.config, {}))


def planned(outlined: Outline, config: Config, counted: Counted, wish: Wish) -> Plan:
    """The plan of a run that is known from its outline; nothing is looked at, and nothing found wrong.

    Raises:
        ConfigError: when the GPU or its price is not known, or the sizes of a model.
    """
    name = wish.gpu or config.report.gpu
    gpu = wish.rates.gpu(name)
    # The smaller: a run file may say less, for a part of a GPU.
    gpu_bytes = int(min(config.engine.gpu_memory_gib or gpu.memory_gib, gpu.memory_gib) * GIB)
    models = {key: Model(shape, config.model(key).dtype) for key, shape in outlined.shapes.items()}
    _check_sizes(outlined, config, models)
    asks = requests(outlined.resources, outlined.gpus, black_box=config.asks_a_server("teacher"))
    config, _ = gpus.settled(config, asks, outlined.stages)
    run = Run(outlined, config, asks, models, counted)
    works = [*tasks(run), *compared_rows(run)]
    return _summed(name, run, [_planned(work, run, name, gpu_bytes, wish) for work in works], gpu_bytes, wish)


def _asked(run_file: RunFile, pipeline: Compiled) -> Asked:
    """The parameters as the pipeline gives them to `preflight`."""
    given = run_file.model_dump(mode="json", include=set(Asked.__dataclass_fields__))
    if "ppo_rewards" not in pipeline.parameters:
        # `distill_minimal` and `distill_open` take no choice of rewards: they have their own.
        given["ppo_rewards"] = ("model",) if pipeline.open_ended else ("model", "mixed")
    return Asked(
        stages=pipeline.stages, gold_labels=pipeline.gold_labels, open_ended=pipeline.open_ended, **given
    )


def _facts(asked: Asked, config: Config, folders: Mapping[str, str]) -> dict[str, ModelFacts]:
    """The models of the run that have weights, by parameter."""
    named = {}
    if judges(asked, config) or (asked.runs("reward") and config.reward.init == "teacher"):
        named["teacher"] = folders.get("teacher") or asked.teacher
    if asked.runs("sft", "ppo"):
        own = asked.student if asked.runs("sft") else asked.checkpoint
        named["student"] = folders.get("student") or own
    named |= dict(further_models(asked))
    return {name: _read(name, path) for name, path in named.items() if not config.asks_a_server(name)}


def _check_sizes(outlined: Outline, config: Config, models: Mapping[str, Model]) -> None:
    """Refuse a run with a model of which no sizes are known.

    Raises:
        ConfigError: naming it.
    """
    wanted = {"student"} if outlined.trains else set()
    if outlined.trains and config.reward.init == "teacher" and "reward" in outlined.stages:
        wanted.add("teacher")
    if "judge" in outlined.stages and not config.asks_a_server("teacher"):
        wanted.add("teacher")
    if missing := sorted(wanted - models.keys()):
        raise ConfigError(
            "the sizes of a model are not known",
            where=missing[0],
            expected="a config.json that names them",
            remedy="Give a dense model of the Llama kind",
        )


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


def _planned(work: Work, run: Run, gpu_name: str, gpu_bytes: int, wish: Wish) -> PlannedTask:
    """All figures of one task."""
    config, gpu = work.config or run.config, wish.rates.gpu(gpu_name)
    taken, fit = room(work, config, run.models, gpu_bytes), fits(work, config, run.models, gpu_bytes)
    took = None if fit == "no" else seconds(work, config, gpu, wish.rates, gpu_bytes)
    nodes = getattr(config, work.stage).deepspeed.nodes if work.stage in TRAIN_STAGES else 1
    hours = (took or 0.0) * work.num_tasks * work.request.gpus * nodes / HOUR
    kept = stored(work, config, run.asked, _trained(work, run), took)
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
        cost=hours * wish.prices.of_gpu(gpu_name) if wish.prices else None,
        api_cost=_api_cost(work, config),
    )


def _trained(work: Work, run: Run) -> Model | None:
    """What a task trains; None of others."""
    if work.stage not in TRAIN_STAGES:
        return None
    return run.models["student"] if work.stage == "ppo" else work.passed[0].model


def _api_cost(work: Work, config: Config) -> float | None:
    """What a black box costs, where its prices are known."""
    server, asked = config.openai, [item for item in work.sampled if item.model is None]
    if not asked or server.prompt_price is None or server.completion_price is None:
        return None
    prompt_tokens = sum(item.prefilled for item in asked)
    completion_tokens = sum(item.requests * item.completion_tokens for item in asked)
    return (prompt_tokens * server.prompt_price + completion_tokens * server.completion_price) / 1e6


def _findings(
    asked: Asked, config: Config, facts: Mapping[str, ModelFacts], gpu_bytes: int
) -> Iterator[Finding]:
    """What preflight would say of lengths, GPUs and memory."""
    asks = requests(parse_resources(asked.resources), asked.gpus, black_box=asked.asks_a_server)
    with_gpu = [stage for stage in GPU_STAGES if asked.runs(stage) and asks[stage].gpus]
    more = [ABLATION] if asked.runs(ABLATION) else []
    on_gpus = replace(asked, stages=[*with_gpu, *more])
    config, unshared = gpus.settled(config, asks, asked.stages)
    yield from unshared
    yield from context.check_lengths(asked, config)
    yield from gpus.check_counts(asked, config, asks)
    for name, item in facts.items():
        dtype = config.model(name).dtype
        yield from context.check_context(item, config)
        yield from gpus.check_split(item, config)
        yield from gpus.check_kv_cache(item, dtype, config)
        if with_gpu:
            yield from gpus.check_sampling(item, dtype, config, gpu_bytes)
    if student := facts.get("student"):
        yield from context.check_row_lengths(student, asked, config)
    shapes = {name: item.shape for name, item in facts.items()}
    yield from gpus.check_training(on_gpus, config, shapes.get("student"), shapes.get("teacher"), gpu_bytes)


def _summed(
    gpu_name: str, run: Run, planned_tasks: Sequence[PlannedTask], gpu_bytes: int, wish: Wish
) -> Plan:
    """The plan with its sums."""
    steps: dict[int, float] = defaultdict(float)
    for task in planned_tasks:
        steps[task.step] = max(steps[task.step], task.seconds or 0.0)
    prices, asked = wish.prices, run.asked
    stored_bytes = sum(task.bytes for task in planned_tasks)
    trains = "judge" in run.outline.stages
    good = accepted(run) if trains else 0.0
    answering = sum(task.gpu_hours for task in planned_tasks if (task.stage, task.name) in ANSWERING)
    api_costs = [task.api_cost for task in planned_tasks if task.api_cost is not None]
    notes = list(asked.notes)
    if trains:
        notes.append(f"{asked.given.accepted_share:.0%} of the teacher's completions are selected (assumed)")
    unknown = [task.task for task in planned_tasks if task.seconds is None]
    if unknown:
        notes.append(f"no time is known of {', '.join(unknown)}: it counts as 0")
    return Plan(
        pipeline="",
        gpu=gpu_name,
        gpu_memory_gib=gpu_bytes / GIB,
        rates_source=wish.rates.gpu(gpu_name).source,
        tasks=tuple(planned_tasks),
        assumptions=(*notes, *UNCOUNTED),
        findings=(),
        hours=sum(steps.values()) / HOUR,
        gpu_hours=sum(task.gpu_hours for task in planned_tasks),
        bytes=stored_bytes,
        objects=sum(task.objects for task in planned_tasks),
        accepted=good,
        accepted_per_gpu_hour=good / answering if answering and good else None,
        cost=sum(task.cost or 0.0 for task in planned_tasks) if prices else None,
        storage_cost=stored_bytes / GB * prices.storage_gb_month if prices else None,
        currency=prices.currency if prices else "",
        price_source=prices.source if prices else "",
        api_cost=sum(api_costs) if api_costs else None,
        api_price_source=run.config.openai.price_source,
    )
