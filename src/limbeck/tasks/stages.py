"""The tasks of the stages that do not train: choose the engine, pass artifacts on, call the stage.

What wants a GPU works in a child process: see `limbeck.tasks.attempts`. Nothing heavy is imported, and no
client made, outside of `work`.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.config import Config, parse_config
from limbeck.errors import ConfigError
from limbeck.manifest import Manifest
from limbeck.records import Source
from limbeck.shards import Shard
from limbeck.storage import Store
from limbeck.tasks import attempts, sampled
from limbeck.tasks.artifacts import (
    Artifact,
    Kind,
    MetricsArtifact,
    Settings,
    one_of,
    read,
    read_all,
    read_any,
    task,
    write,
)

if TYPE_CHECKING:
    pass

SHARDED: tuple[Kind, ...] = ("completions", "judgements", "results")
"""What stages make that may be shared out among several tasks."""
NO_LABELS = "<!DOCTYPE html><title>Limbeck: pseudo labels</title><p>This run made no pseudo labels.</p>\n"
"""Kubeflow wants a file for each output."""


def prepare(
    *,
    data: str,
    heldout_data: str,
    work_uri: str,
    config: Settings,
    prompts: Artifact,
    heldout: Artifact,
    gold: Artifact,
) -> None:
    """See `limbeck.stages.prepare`."""
    with task("prepare"):
        from limbeck.stages import prepare as stage

        made = stage.run(data, heldout_data, parse_config(config), Store(), work_uri)
        for manifest, artifact in zip(made, (prompts, heldout, gold), strict=True):
            write(manifest, artifact)


def generate(
    *,
    prompts: Artifact,
    work_uri: str,
    config: Settings,
    completions: Artifact,
    model: str,
    role: str,
    shard: int,
    num_shards: int,
    checkpoint: Artifact | None,
) -> None:
    """See `limbeck.stages.generate`."""

    def work(checked: Config) -> Manifest:
        from limbeck.stages import generate as stage

        source: Source = one_of(role, Source, "generate, parameter role")
        mine = _shard("generate", shard, num_shards)
        chat = checked.chat(role)
        with sampled.model(checked, model, checkpoint, role, chat) as (store, model_hash, open_sampler):
            return stage.run(
                prompts=read(prompts, "prompts"),
                model_hash=model_hash,
                open_sampler=open_sampler,
                config=checked,
                store=store,
                work_uri=work_uri,
                role=source,
                shard=mine,
            )

    attempts.in_child("generate", config, work, completions)


def judge(
    *,
    prompts: Artifact,
    completions: Artifact,
    model: str,
    work_uri: str,
    config: Settings,
    judgements: Artifact,
    shard: int = 0,
    num_shards: int = 1,
) -> None:
    """See `limbeck.stages.judge`."""

    def work(checked: Config) -> Manifest:
        from limbeck.stages import judge as stage

        mine = _shard("judge", shard, num_shards)
        with sampled.model(checked, model, None, "teacher", sampled.JUDGED) as (
            store,
            model_hash,
            open_sampler,
        ):
            return stage.run(
                prompts=read(prompts, "prompts"),
                completions=read(completions, "completions"),
                model_hash=model_hash,
                open_sampler=open_sampler,
                config=checked,
                store=store,
                work_uri=work_uri,
                shard=mine,
            )

    attempts.in_child("judge", config, work, judgements)


def label(
    *,
    prompts: Artifact,
    completions: Artifact,
    work_uri: str,
    config: Settings,
    labels: Artifact,
    labelled: Artifact,
    judgements: Artifact | None,
    given_labels: Artifact | None,
    gold: Artifact | None = None,
    variant: str = "",
) -> None:
    """See `limbeck.stages.label`."""
    with task("label"):
        from limbeck.stages import label as stage

        made = stage.run(
            prompts=read(prompts, "prompts"),
            completions=[read(completions, "completions")],
            judgements=[read(judgements, "judgements")] if judgements else [],
            given_labels=read(given_labels, "labels") if given_labels else None,
            config=parse_config(config, variant),
            store=Store(),
            work_uri=work_uri,
            gold=read(gold, "gold") if gold else None,
            variant=variant,
        )
        write(made.labels, labels)
        write(made.labelled, labelled)


def evaluate(
    *,
    heldout: Artifact,
    gold: Artifact,
    work_uri: str,
    config: Settings,
    results: Artifact,
    metrics: MetricsArtifact,
    name: str,
    model: str,
    checkpoint: Artifact | None,
    judge: str = "",
    models: Sequence[str] = (),
    shard: int = 0,
    num_shards: int = 1,
) -> None:
    """See `limbeck.stages.evaluate`; with `models` one loop goes over the shards of all of them."""

    def work(checked: Config) -> Manifest:
        from limbeck.judged_answers import Judge
        from limbeck.stages import evaluate as stage

        turn = _shard("evaluate", shard, num_shards * max(1, len(models))).index
        mine = Shard(index=turn % num_shards, count=num_shards)
        asked = models[turn // num_shards] if models else model
        with ExitStack() as opened:
            chat = checked.chat(name)
            store, model_hash, open_sampler = opened.enter_context(
                sampled.model(checked, asked, checkpoint, name, chat)
            )
            judging = None
            if judge and checked.task.is_open:
                loading = sampled.model(checked, judge, None, "teacher", sampled.JUDGED)
                _, judge_hash, open_judge = opened.enter_context(loading)
                judging = Judge(judge_hash, open_judge)
            return stage.run(
                heldout=read(heldout, "heldout"),
                gold=read(gold, "gold"),
                model_hash=model_hash,
                open_sampler=open_sampler,
                config=checked,
                store=store,
                work_uri=work_uri,
                name=read(checkpoint, "checkpoint").name if checkpoint else name or _folder(asked),
                judge=judging,
                shard=mine,
            )

    attempts.in_child("evaluate", config, work, results, metrics)


def merge(
    *, shards: Sequence[Artifact], config: Settings, merged: Artifact, metrics: MetricsArtifact
) -> None:
    """One manifest of all shards of a stage: see `limbeck.merging` and `merged` of the stages."""
    with task("merge"):
        from limbeck.stages import evaluate as evaluating
        from limbeck.stages import generate as generating
        from limbeck.stages import judge as judging

        checked, store = parse_config(config), Store()
        given = [read_any(item, SHARDED) for item in shards]
        kinds = {item.kind for item in given}
        if kinds == {"completions"}:
            whole = generating.merged(given, checked, store)
        elif kinds == {"judgements"}:
            whole = judging.merged(given, store)
        else:
            whole = evaluating.merged(given, checked, store)
        write(whole, merged, metrics)


def report(
    *,
    heldout: Artifact,
    gold: Artifact,
    results: Sequence[Artifact],
    work_uri: str,
    config: Settings,
    page: Artifact,
    summary: Artifact,
    metrics: MetricsArtifact,
    run_report: Artifact,
    label_page: Artifact,
    teacher_results: Artifact | None,
    student_results: Artifact | None,
    policy_results: Sequence[Artifact] | None,
    prompts: Artifact | None,
    completions: Artifact | None,
    judgements: Artifact | None,
    labels: Artifact | None,
    student_completions: Artifact | None,
    sft_checkpoints: Sequence[Artifact] | None,
    reward_model: Artifact | None,
    policies: Sequence[Artifact] | None,
    policy: Artifact | None,
    outline: str = "",
) -> None:
    """See `limbeck.stages.report`; the pages and the summary also go out as they are."""
    with task("report"):
        from limbeck.planning.outline import parse_outline
        from limbeck.planning.page import plan_of_report
        from limbeck.stages import report as stage

        store, checked = Store(), parse_config(config)
        inputs = stage.ReportInputs(
            prompts=read(prompts, "prompts") if prompts else None,
            heldout=read(heldout, "heldout"),
            gold=read(gold, "gold"),
            completions=read_all([completions] if completions else [], "completions"),
            judgements=read_all([judgements] if judgements else [], "judgements"),
            labels=read(labels, "labels") if labels else None,
            sft_checkpoints=read_all(sft_checkpoints, "checkpoint"),
            student_completions=read_all([student_completions] if student_completions else [], "completions"),
            reward_model=read(reward_model, "reward_model") if reward_model else None,
            policies=read_all(policies, "checkpoint"),
            policy=read(policy, "checkpoint") if policy else None,
            results=_evaluations(
                [
                    *(item for item in (teacher_results, student_results) if item is not None),
                    *results,
                    *(policy_results or ()),
                ],
                checked,
                store,
            ),
        )
        plan = None
        if outline:
            outlined = parse_outline(outline, "report, parameter outline")
            # Labels have a row for each prompt too, where a run starts from those of an earlier one.
            plan = plan_of_report(outlined, inputs.prompts or inputs.labels, inputs.heldout, checked, store)
        made = stage.run(inputs, checked, store, work_uri, plan)
        write(made, run_report, metrics)
        Path(label_page.path).parent.mkdir(parents=True, exist_ok=True)
        Path(label_page.path).write_text(NO_LABELS, encoding="utf-8")
        for item in made.objects:
            if item.uri.endswith("/report.html"):
                store.read_file(item, Path(page.path))
            elif item.uri.endswith("/report.md"):
                store.read_file(item, Path(summary.path))
            elif item.uri.endswith("/labels.html"):
                store.read_file(item, Path(label_page.path))


def _evaluations(results: Sequence[Artifact], config: Config, store: Store) -> tuple[Manifest, ...]:
    """Evaluations, each one manifest: what a loop over the shards of several models has made is merged."""
    from limbeck.stages import evaluate as stage

    by_place: dict[str, list[Manifest]] = {}
    for item in read_all(results, "results"):
        by_place.setdefault(item.uri, []).append(item)
    found: list[Manifest] = []
    for items in by_place.values():
        found += [stage.merged(items, config, store)] if any(item.shard for item in items) else items
    return tuple(found)


def _shard(stage: str, shard: int, num_shards: int) -> Shard:
    """The shard that the parameters name.

    Raises:
        ConfigError: when there is none.
    """
    if not 0 <= shard < num_shards:
        raise ConfigError(
            "no such shard",
            where=f"{stage}, parameter shard",
            expected=f"0 to {num_shards - 1} (num_shards is {num_shards})",
            got=str(shard),
            remedy="Loop over the output of `shards`",
        )
    return Shard(index=shard, count=num_shards)


def _folder(uri: str) -> str:
    """The last part of an address: what a model is called that nobody named."""
    return uri.rstrip("/").rpartition("/")[2]
