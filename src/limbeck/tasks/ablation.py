"""The tasks that `pipelines/ablation` adds: label noise, SFT at equal compute, and the page of all rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from limbeck.config import parse_config
from limbeck.errors import DataError
from limbeck.manifest import Manifest
from limbeck.progress import say
from limbeck.storage import Store
from limbeck.tasks.artifacts import Artifact, Kind, MetricsArtifact, read, read_all, task, write

Settings = dict[str, Any]
FULL = "ppo_model"
"""The row of the whole method."""


def noise(
    *,
    labels: Artifact,
    teacher_labelled: Artifact,
    student_labelled: Artifact,
    work_uri: str,
    config: Settings,
    variant: str,
    noisy_labels: Artifact,
    noisy_teacher: Artifact,
    noisy_student: Artifact,
) -> None:
    """See `limbeck.ablation.noise`."""
    with task("noise"):
        from limbeck.ablation import noise as work

        made = work.run(
            read(labels, "labels"),
            read(teacher_labelled, "labelled"),
            read(student_labelled, "labelled"),
            parse_config(config, variant),
            Store(),
            work_uri,
            variant=variant,
        )
        for manifest, artifact in zip(made, (noisy_labels, noisy_teacher, noisy_student), strict=True):
            write(manifest, artifact)


def match(
    *,
    checkpoint: Artifact,
    student_labelled: Artifact,
    reward_model: Artifact,
    policies: Sequence[Artifact],
    config: Settings,
) -> str:
    """The variant at which SFT alone costs what the whole method does: see `limbeck.ablation.compute`."""
    with task("match"):
        from limbeck.ablation.compute import counted, equal_epochs

        found = {item.name: item for item in read_all(policies, "checkpoint")}
        if FULL not in found:
            raise DataError(
                "no policy of the whole method",
                where="component match, input policies",
                expected=FULL,
                got=", ".join(found) or "none",
                remedy="Add `model` to ppo_rewards",
            )
        counts = counted(
            read(checkpoint, "checkpoint"),
            read(student_labelled, "labelled"),
            read(reward_model, "reward_model"),
            found[FULL],
            parse_config(config),
        )
        epochs = equal_epochs(counts)
        say(f"match: SFT of {epochs:.2f} epochs costs what SFT, reward model and PPO do; {counts}")
        return f"sft.num_epochs={epochs:.2f}"


def compare(
    *,
    work_uri: str,
    config: Settings,
    page: Artifact,
    summary: Artifact,
    metrics: MetricsArtifact,
    comparison: Artifact,
    results: Sequence[Artifact | Sequence[Artifact] | None],
    made: Sequence[tuple[Kind, Artifact | Sequence[Artifact] | None]],
) -> None:
    """See `limbeck.ablation.compare`.

    Args:
        work_uri: Prefix of all results.
        config: Settings of all stages.
        page: The page as HTML goes there.
        summary: The page as Markdown.
        metrics: Its figures.
        comparison: Its manifest.
        results: Evaluations, in the order of the rows.
        made: What the stages made, by kind.
    """
    with task("compare"):
        from limbeck.ablation import compare as work

        store = Store()
        done = work.run(
            [item for given in results for item in _all(given, "results")],
            [item for kind, given in made for item in _all(given, kind)],
            parse_config(config),
            store,
            work_uri,
        )
        write(done, comparison, metrics)
        for item in done.objects:
            if item.uri.endswith(".html"):
                store.read_file(item, Path(page.path))
            elif item.uri.endswith(".md"):
                store.read_file(item, Path(summary.path))


def _all(given: Artifact | Sequence[Artifact] | None, kind: Kind) -> tuple[Manifest, ...]:
    """The manifests of one artifact, of a list, or of none."""
    if given is None:
        return ()
    return read_all(given, kind) if isinstance(given, Sequence) else (read(given, kind),)
