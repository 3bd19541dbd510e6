"""The `report` component."""

from typing import Any

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Markdown, Metrics, Model, Output

from images.images import TOOLS


@dsl.component(base_image=TOOLS, install_kfp_package=False)
def report(
    prompts: Input[Dataset],
    heldout: Input[Dataset],
    gold: Input[Dataset],
    completions: Input[list[Dataset]],
    judgements: Input[list[Dataset]],
    labels: Input[Dataset],
    student_completions: Input[list[Dataset]],
    sft_checkpoints: Input[list[Model]],
    reward_model: Input[Model],
    policies: Input[list[Model]],
    policy: Input[Model],
    base_results: Input[list[Dataset]],
    sft_results: Input[list[Dataset]],
    policy_results: Input[list[Dataset]],
    work_uri: str,
    config: dict[str, Any],
    page: Output[HTML],
    summary: Output[Markdown],
    metrics: Output[Metrics],
    run_report: Output[Artifact],
) -> None:
    """Tell how the run went: one page for people, one JSON for machines, and the promotion decision.

    Args:
        prompts: Manifest of training prompts.
        heldout: Manifest of held-out prompts.
        gold: Manifest of gold answers, to measure the labels. Nothing made here goes into training.
        completions: Manifests of the teacher's completions.
        judgements: Manifests of the teacher's judgements of them.
        labels: Manifest of the pseudo labels.
        student_completions: Manifests of the warmed-up student's completions.
        sft_checkpoints: Manifests of the warmed-up students.
        reward_model: Manifest of the reward model.
        policies: Manifests of the policies, one for each kind of reward.
        policy: Manifest of the policy that was picked.
        base_results: Manifests of the evaluations of teacher and student as they came.
        sft_results: Manifests of the evaluations of the warmed-up students.
        policy_results: Manifests of the evaluations of the policies.
        work_uri: Prefix in the object store for all results.
        config: Settings of all stages; this one reads `report`, `label`, `task` and `seed`.

    Returns:
        page: The report as a self-contained HTML page.
        summary: The report as Markdown.
        metrics: Accuracies, label quality and the decision.
        run_report: Manifest of report.json, report.html and report.md.
    """
    from limbeck import tasks

    tasks.report(
        prompts=prompts,
        heldout=heldout,
        gold=gold,
        completions=completions,
        judgements=judgements,
        labels=labels,
        student_completions=student_completions,
        sft_checkpoints=sft_checkpoints,
        reward_model=reward_model,
        policies=policies,
        policy=policy,
        base_results=base_results,
        sft_results=sft_results,
        policy_results=policy_results,
        work_uri=work_uri,
        config=config,
        page=page,
        summary=summary,
        metrics=metrics,
        run_report=run_report,
    )
