"""The tasks around the stages: check before anything costs time, count shards, pick, load, export."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from limbeck import checkpoints
from limbeck.config import parse_config
from limbeck.errors import ConfigError, DataError
from limbeck.manifest import digest, input_hashes, load_manifest, require, stage_uri
from limbeck.progress import say
from limbeck.resources import parse_resources, requests
from limbeck.storage import Store
from limbeck.tasks.artifacts import Artifact, Kind, Settings, one_of, read, read_all, task, write
from limbeck.tasks.launching import placed, shared_out
from limbeck.trainjob import TrainJobSettings, parse_train_jobs


class Requests(NamedTuple):
    """What the tasks of each stage ask of their nodes, as Kubernetes quantities; and the run's outline."""

    prepare_cpu: str
    prepare_memory: str
    generate_cpu: str
    generate_memory: str
    generate_gpus: str
    generate_teacher_cpu: str
    generate_teacher_memory: str
    generate_teacher_gpus: str
    judge_cpu: str
    judge_memory: str
    judge_gpus: str
    label_cpu: str
    label_memory: str
    sft_cpu: str
    sft_memory: str
    sft_gpus: str
    reward_cpu: str
    reward_memory: str
    reward_gpus: str
    ppo_cpu: str
    ppo_memory: str
    ppo_gpus: str
    evaluate_cpu: str
    evaluate_memory: str
    evaluate_gpus: str
    evaluate_teacher_cpu: str
    evaluate_teacher_memory: str
    evaluate_teacher_gpus: str
    report_cpu: str
    report_memory: str
    sft_node_selector: Settings
    """Of its pods; that of the run, or none where they only wait for a TrainJob. The next ones likewise."""
    sft_node_affinity: Settings
    sft_tolerations: list[Settings]
    reward_node_selector: Settings
    reward_node_affinity: Settings
    reward_tolerations: list[Settings]
    ppo_node_selector: Settings
    ppo_node_affinity: Settings
    ppo_tolerations: list[Settings]
    train_jobs: Settings
    """For the trainings on several nodes; empty where there is none."""
    outline: str
    """JSON, for `report`."""


def preflight(
    *,
    work_uri: str,
    stages: Sequence[str],
    prompts: str,
    heldout: str,
    teacher: str,
    student: str,
    models: Sequence[str],
    prepared_uri: str,
    label_uri: str,
    checkpoint: str,
    num_shards: int,
    num_evaluate_shards: int,
    ppo_rewards: Sequence[str],
    gpus: int,
    gpu_resource: str,
    node_selector: Settings,
    node_affinity: Settings,
    tolerations: Sequence[Settings],
    resources: Settings,
    config: Settings,
    gold_labels: bool = False,
    train_jobs: Settings | None = None,
    s3_secret: str = "limbeck-s3",  # noqa: S107 - its name
    api_secret: str = "limbeck-api",  # noqa: S107 - its name
    reward_variants: Sequence[str] = ("reward.source_weight=0",),
    noise_variants: Sequence[str] = ("label.noise=0.1",),
    open_ended: bool = False,
) -> Requests:
    """Check everything that can be checked before a GPU is asked for; give what each stage will ask for."""
    with task("preflight"):
        from limbeck.planning.outline import outline
        from limbeck.preflight import Asked, check, conclude

        given = Asked(
            work_uri=work_uri,
            stages=stages,
            prompts=prompts,
            heldout=heldout,
            teacher=teacher,
            student=student,
            models=models,
            prepared_uri=prepared_uri,
            label_uri=label_uri,
            checkpoint=checkpoint,
            num_shards=num_shards,
            num_evaluate_shards=num_evaluate_shards,
            ppo_rewards=ppo_rewards,
            reward_variants=reward_variants,
            noise_variants=noise_variants,
            gold_labels=gold_labels,
            open_ended=open_ended,
            gpus=gpus,
            gpu_resource=gpu_resource,
            node_selector=node_selector,
            node_affinity=node_affinity,
            tolerations=tolerations,
            resources=resources,
            train_jobs=train_jobs or {},
            config=config,
        )
        outcome = check(given, running=True)
        conclude(outcome.findings, outcome.checked)
        asked = requests(parse_resources(resources), gpus, black_box=given.asks_a_server)
        of_tasks, of_nodes = shared_out(asked, parse_config(config))
        made: dict[str, Any] = {
            f"{stage}_{field}": str(value)
            for stage, request in of_tasks.items()
            for field, value in request.model_dump().items()
            if f"{stage}_{field}" in Requests._fields
        }
        made |= placed(dict(node_selector), dict(node_affinity), list(tolerations), of_nodes)
        settings = TrainJobSettings(
            **parse_train_jobs(train_jobs or {}).model_dump(),
            s3_secret=s3_secret,
            api_secret=api_secret,
            gpu_resource=gpu_resource,
            nodes=of_nodes,
        ).model_dump(mode="json", exclude_none=True)
        return Requests(
            outline=outline(given, outcome.models).model_dump_json(),
            **made,
            train_jobs=settings if of_nodes else {},
        )


def shards(*, num_shards: int, for_each: Sequence[str] = ()) -> list[int]:
    """The shards to loop over: 0 to num_shards - 1; of several models, as many for each, counted on."""
    with task("shards"):
        if not 1 <= num_shards <= 10_000:
            raise ConfigError(
                "impossible number of shards",
                where="parameter num_shards",
                expected="1 to 10000",
                got=str(num_shards),
                remedy="Correct it",
            )
        return list(range(num_shards * max(1, len(for_each))))


def pick(*, checkpoints: Sequence[Artifact], names: Sequence[str], picked: Artifact, metric: str) -> None:
    """Give on one of several checkpoints: the first of `names`, or the one with the highest metric."""
    with task("pick"):
        found = {item.name: item for item in read_all(checkpoints, "checkpoint")}
        present = [found[name] for name in names if name in found]
        if not present:
            raise DataError(
                "no such checkpoint",
                where="component pick",
                expected=" or ".join(names),
                got=", ".join(found) or "none",
                remedy="Correct `names`",
            )
        for item in present:
            if metric and metric not in item.metrics:
                raise DataError(
                    "a checkpoint without the metric to pick by",
                    where=f"component pick, checkpoint {item.name}",
                    expected=metric,
                    got=", ".join(item.metrics) or "no metrics",
                    remedy="Correct `metric`, or pick by `names` alone",
                )
        chosen = max(present, key=lambda item: item.metrics[metric]) if metric else present[0]
        say(f"pick: {chosen.name}" + (f" with {metric} {chosen.metrics[metric]:.3f}" if metric else ""))
        write(chosen, picked)


def load(*, uri: str, kind: str, loaded: Artifact, name: str) -> None:
    """Give on what an earlier run made, or wrap a checkpoint folder that another tool made."""
    with task("load"):
        wanted: Kind = one_of(kind, Kind, "load, parameter kind")
        store = Store()
        manifest = load_manifest(store, uri, wanted)
        if manifest is None and wanted in ("checkpoint", "reward_model"):
            manifest = checkpoints.wrap(store, uri, wanted, name)
        if manifest is None:
            raise DataError(
                "nothing finished lies there",
                where=uri,
                expected=f"a manifest of {wanted}",
                got="no manifest.json",
                remedy="`limbeck status WORK_URI` shows what is there",
            )
        require(store, manifest)
        say(f"load: {manifest.kind} {manifest.name}, {len(manifest.objects)} objects")
        write(manifest, loaded)


def export(
    *,
    run_report: Artifact,
    work_uri: str,
    exported: Artifact,
    name: str,
    student: str,
    teacher: str,
    base_model: str,
    datasets: Sequence[str],
    even_if_not_promoted: bool,
    register: str,
    registry: str,
) -> None:
    """See `limbeck.export`."""
    with task("export"):
        from limbeck.export import Asked, Registry, choose, export_to_store
        from limbeck.export import register as enter

        asked = Asked(student, teacher, base_model, tuple(datasets))
        asked.check()
        place = Registry(registry, register) if register or registry else None
        if place:
            place.check()
        store = Store()
        chosen = choose(store, read(run_report, "report"), name)
        chosen.check(even_if_not_promoted=even_if_not_promoted, registering=place is not None)
        inputs = input_hashes(checkpoint=chosen.checkpoint, source=chosen.source)
        uri = stage_uri(work_uri, "export", inputs, digest(asked))
        made = export_to_store(store, chosen, asked, uri, leased=True)
        if place:
            enter(place, made, chosen)
        write(made, exported)
