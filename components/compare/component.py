"""The `compare` component."""

from typing import Any

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Markdown, Metrics, Model, Output

from images.images import TOOLS


@dsl.component(base_image=TOOLS, install_kfp_package=False)
def compare(
    sft_results: Input[list[Dataset]],
    work_uri: str,
    page: Output[HTML],
    summary: Output[Markdown],
    metrics: Output[Metrics],
    comparison: Output[Artifact],
    policy_results: Input[list[Dataset]] | None = None,
    reward_variant_results: Input[list[Dataset]] | None = None,
    noise_variant_results: Input[list[Dataset]] | None = None,
    teacher_results: Input[Dataset] | None = None,
    student_results: Input[Dataset] | None = None,
    tuned_teacher_results: Input[Dataset] | None = None,
    longer_sft_results: Input[Dataset] | None = None,
    gold_results: Input[Dataset] | None = None,
    completions: Input[Dataset] | None = None,
    judgements: Input[Dataset] | None = None,
    labels: Input[Dataset] | None = None,
    gold_labels: Input[Dataset] | None = None,
    noisy_labels: Input[list[Dataset]] | None = None,
    student_completions: Input[Dataset] | None = None,
    sft_checkpoints: Input[list[Model]] | None = None,
    tuned_teacher: Input[Model] | None = None,
    longer_sft: Input[Model] | None = None,
    reward_model: Input[Model] | None = None,
    reward_variants: Input[list[Model]] | None = None,
    noise_variants: Input[list[Model]] | None = None,
    policies: Input[list[Model]] | None = None,
    reward_variant_policies: Input[list[Model]] | None = None,
    noise_variant_policies: Input[list[Model]] | None = None,
    gold_policy: Input[Model] | None = None,
    config: dict[str, Any] = {},
) -> None:
    """Compare all rows of an ablation on one page, corrected for the number of comparisons.

    What was made is only counted: how many tasks asked for it, and how often it was made.

    Args:
        sft_results: Manifests of the evaluations of the warmed-up students.
        work_uri: Prefix in the object store for all results; the same one finds finished work again.
        policy_results: Manifests of the evaluations of the policies.
        reward_variant_results: Manifests of the evaluations of the policies of other reward models.
        noise_variant_results: Manifests of the evaluations of the policies of noisy labels.
        teacher_results: Manifest of the evaluation of the teacher.
        student_results: Manifest of the evaluation of the student as it came.
        tuned_teacher_results: Manifest of the evaluation of the teacher tuned on its own completions.
        longer_sft_results: Manifest of the evaluation of SFT at equal compute.
        gold_results: Manifest of the evaluation of the policy that gold labels rewarded.
        completions: Manifest of the teacher's completions.
        judgements: Manifest of the judgements of them.
        labels: Manifest of the pseudo labels.
        gold_labels: Manifest of the gold answers as labels.
        noisy_labels: Manifests of the noisy labels.
        student_completions: Manifest of the warmed-up student's completions.
        sft_checkpoints: Manifests of the warmed-up students.
        tuned_teacher: Manifest of the tuned teacher.
        longer_sft: Manifest of SFT at equal compute.
        reward_model: Manifest of the reward model.
        reward_variants: Manifests of the reward models of the sweep of settings.
        noise_variants: Manifests of the reward models of noisy labels.
        policies: Manifests of the policies.
        reward_variant_policies: Manifests of the policies of other reward models.
        noise_variant_policies: Manifests of the policies of noisy labels.
        gold_policy: Manifest of the policy that gold labels rewarded.
        config: Settings of all stages; this one reads `report`, `task` and `seed`.

    Returns:
        page: The page as self-contained HTML.
        summary: The page as Markdown.
        metrics: Accuracies of the rows.
        comparison: Manifest of ablation.json, ablation.html and ablation.md.
    """
    from limbeck import tasks

    tasks.compare(
        sft_results=sft_results,
        work_uri=work_uri,
        page=page,
        summary=summary,
        metrics=metrics,
        comparison=comparison,
        policy_results=policy_results,
        reward_variant_results=reward_variant_results,
        noise_variant_results=noise_variant_results,
        teacher_results=teacher_results,
        student_results=student_results,
        tuned_teacher_results=tuned_teacher_results,
        longer_sft_results=longer_sft_results,
        gold_results=gold_results,
        completions=completions,
        judgements=judgements,
        labels=labels,
        gold_labels=gold_labels,
        noisy_labels=noisy_labels,
        student_completions=student_completions,
        sft_checkpoints=sft_checkpoints,
        tuned_teacher=tuned_teacher,
        longer_sft=longer_sft,
        reward_model=reward_model,
        reward_variants=reward_variants,
        noise_variants=noise_variants,
        policies=policies,
        reward_variant_policies=reward_variant_policies,
        noise_variant_policies=noise_variant_policies,
        gold_policy=gold_policy,
        config=config,
    )
