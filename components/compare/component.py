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
    judge_results: Input[Dataset] | None = None,
    gold_results: Input[Dataset] | None = None,
    completions: Input[list[Dataset]] | None = None,
    judgements: Input[list[Dataset]] | None = None,
    labels: Input[Dataset] | None = None,
    gold_labels: Input[Dataset] | None = None,
    noisy_labels: Input[list[Dataset]] | None = None,
    student_completions: Input[list[Dataset]] | None = None,
    sft_checkpoints: Input[list[Model]] | None = None,
    tuned_teacher: Input[Model] | None = None,
    longer_sft: Input[Model] | None = None,
    reward_model: Input[Model] | None = None,
    reward_variants: Input[list[Model]] | None = None,
    noise_variants: Input[list[Model]] | None = None,
    policies: Input[list[Model]] | None = None,
    reward_variant_policies: Input[list[Model]] | None = None,
    noise_variant_policies: Input[list[Model]] | None = None,
    judge_policy: Input[Model] | None = None,
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
        judge_results: Manifest of the evaluation of the policy that the judge rewarded.
        gold_results: Manifest of the evaluation of the policy that gold labels rewarded.
        completions: Manifests of the teacher's completions.
        judgements: Manifests of the judgements of them.
        labels: Manifest of the pseudo labels.
        gold_labels: Manifest of the gold answers as labels.
        noisy_labels: Manifests of the noisy labels.
        student_completions: Manifests of the warmed-up student's completions.
        sft_checkpoints: Manifests of the warmed-up students.
        tuned_teacher: Manifest of the tuned teacher.
        longer_sft: Manifest of SFT at equal compute.
        reward_model: Manifest of the reward model.
        reward_variants: Manifests of the reward models of the sweep of settings.
        noise_variants: Manifests of the reward models of noisy labels.
        policies: Manifests of the policies.
        reward_variant_policies: Manifests of the policies of other reward models.
        noise_variant_policies: Manifests of the policies of noisy labels.
        judge_policy: Manifest of the policy that the judge rewarded.
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
        work_uri=work_uri,
        config=config,
        page=page,
        summary=summary,
        metrics=metrics,
        comparison=comparison,
        results=[
            teacher_results,
            tuned_teacher_results,
            student_results,
            sft_results,
            longer_sft_results,
            policy_results,
            judge_results,
            gold_results,
            reward_variant_results,
            noise_variant_results,
        ],
        made=[
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
            ("checkpoint", judge_policy),
            ("checkpoint", gold_policy),
        ],
    )
