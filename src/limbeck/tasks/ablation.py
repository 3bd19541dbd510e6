"""The tasks that `pipelines/ablation` adds: label noise, SFT at equal compute, and the page of all rows."""

from collections.abc import Sequence
from pathlib import Path

from limbeck.config import parse_config
from limbeck.errors import DataError
from limbeck.manifest import Manifest
from limbeck.progress import say
from limbeck.storage import Store
from limbeck.tasks.artifacts import Artifact, Kind, MetricsArtifact, Settings, read, read_all, task, write

Given = Artifact | Sequence[Artifact] | None
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

        warmed_up, labelled = read(checkpoint, "checkpoint"), read(student_labelled, "labelled")
        scorer = read(reward_model, "reward_model")
        found = {item.name: item for item in read_all(policies, "checkpoint")}
        if FULL not in found:
            raise DataError(
                "no policy of the whole method",
                where="component match, input policies",
                expected=FULL,
                got=", ".join(found) or "none",
                remedy="Add `model` to ppo_rewards",
            )
        counts = counted(warmed_up, labelled, scorer, found[FULL], parse_config(config))
        epochs = equal_epochs(counts)
        say(f"match: SFT of {epochs:.2f} epochs costs what SFT, reward model and PPO do; {counts}")
        return f"sft.num_epochs={epochs:.2f}"


def compare(
    *,
    sft_results: Sequence[Artifact],
    work_uri: str,
    config: Settings,
    page: Artifact,
    summary: Artifact,
    metrics: MetricsArtifact,
    comparison: Artifact,
    policy_results: Sequence[Artifact] | None,
    reward_variant_results: Sequence[Artifact] | None,
    noise_variant_results: Sequence[Artifact] | None,
    teacher_results: Artifact | None,
    student_results: Artifact | None,
    tuned_teacher_results: Artifact | None,
    longer_sft_results: Artifact | None,
    gold_results: Artifact | None,
    completions: Artifact | None,
    judgements: Artifact | None,
    labels: Artifact | None,
    gold_labels: Artifact | None,
    noisy_labels: Sequence[Artifact] | None,
    student_completions: Artifact | None,
    sft_checkpoints: Sequence[Artifact] | None,
    tuned_teacher: Artifact | None,
    longer_sft: Artifact | None,
    reward_model: Artifact | None,
    reward_variants: Sequence[Artifact] | None,
    noise_variants: Sequence[Artifact] | None,
    policies: Sequence[Artifact] | None,
    reward_variant_policies: Sequence[Artifact] | None,
    noise_variant_policies: Sequence[Artifact] | None,
    gold_policy: Artifact | None,
) -> None:
    """See `limbeck.ablation.compare`; the page and the summary also go out as they are."""
    with task("compare"):
        from limbeck.ablation import compare as work

        results = (  # in the order of the page
            teacher_results,
            tuned_teacher_results,
            student_results,
            sft_results,
            longer_sft_results,
            policy_results,
            gold_results,
            reward_variant_results,
            noise_variant_results,
        )
        made: tuple[tuple[Kind, Given], ...] = (
            ("completions", completions),
            ("judgements", judgements),
            ("labels", labels),
            ("labels", gold_labels),
            ("labels", noisy_labels),
            ("completions", student_completions),
            ("checkpoint", sft_checkpoints),
            ("checkpoint", tuned_teacher),
            ("checkpoint", longer_sft),
            ("reward_model", reward_model),
            ("reward_model", reward_variants),
            ("reward_model", noise_variants),
            ("checkpoint", policies),
            ("checkpoint", reward_variant_policies),
            ("checkpoint", noise_variant_policies),
            ("checkpoint", gold_policy),
        )
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


def _all(given: Given, kind: Kind) -> tuple[Manifest, ...]:
    """The manifests of one artifact, of a list, or of none."""
    if given is None:
        return ()
    return read_all(given, kind) if isinstance(given, Sequence) else (read(given, kind),)
