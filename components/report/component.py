"""The `report` component."""

from typing import Any

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Markdown, Metrics, Model, Output

from images.images import TOOLS


@dsl.component(base_image=TOOLS, install_kfp_package=False)
def report(
    heldout: Input[Dataset],
    gold: Input[Dataset],
    results: Input[list[Dataset]],
    work_uri: str,
    page: Output[HTML],
    summary: Output[Markdown],
    metrics: Output[Metrics],
    run_report: Output[Artifact],
    label_page: Output[HTML],
    teacher_results: Input[Dataset] | None = None,
    student_results: Input[Dataset] | None = None,
    policy_results: Input[list[Dataset]] | None = None,
    prompts: Input[Dataset] | None = None,
    completions: Input[Dataset] | None = None,
    judgements: Input[Dataset] | None = None,
    labels: Input[Dataset] | None = None,
    student_completions: Input[Dataset] | None = None,
    sft_checkpoints: Input[list[Model]] | None = None,
    reward_model: Input[Model] | None = None,
    policies: Input[list[Model]] | None = None,
    policy: Input[Model] | None = None,
    outline: str = "",
    config: dict[str, Any] = {},
) -> None:
    """Tell how the run went: one page for people, one JSON for machines, and the promotion decision.

    What a pipeline did not make is left out of the page.

    Args:
        heldout: Manifest of held-out prompts.
        gold: Manifest of gold answers, to measure with. Nothing made here goes into training.
        results: Manifests of evaluations, or of all shards of each; each must have a name of its own.
        work_uri: Prefix in the object store for all results; the same one finds finished work again.
        teacher_results: Manifest of the evaluation of the teacher.
        student_results: Manifest of the evaluation of the student as it came.
        policy_results: Manifests of the evaluations of the policies.
        prompts: Manifest of training prompts.
        completions: Manifest of the teacher's completions.
        judgements: Manifest of the teacher's judgements of them.
        labels: Manifest of the pseudo labels.
        student_completions: Manifest of the warmed-up student's completions.
        sft_checkpoints: Manifests of the warmed-up students.
        reward_model: Manifest of the reward model.
        policies: Manifests of the policies, one for each kind of reward.
        policy: Manifest of the checkpoint that was picked.
        outline: The output of `preflight`: the page then has the run's plan beside what was measured.
        config: Settings of all stages; this one reads `report`, `label`, `task` and `seed`.

    Returns:
        page: The report as a self-contained HTML page.
        summary: The report as Markdown.
        metrics: Accuracies, label quality and the decision.
        run_report: Manifest of report.json, report.html, report.md, labels.json and labels.html.
        label_page: The label report as a self-contained HTML page: precision and coverage, the judge, the
            worst disagreements with gold.
    """
    from limbeck import tasks

    tasks.report(
        heldout=heldout,
        gold=gold,
        results=results,
        work_uri=work_uri,
        config=config,
        page=page,
        summary=summary,
        metrics=metrics,
        run_report=run_report,
        label_page=label_page,
        teacher_results=teacher_results,
        student_results=student_results,
        policy_results=policy_results,
        prompts=prompts,
        completions=completions,
        judgements=judgements,
        labels=labels,
        student_completions=student_completions,
        sft_checkpoints=sft_checkpoints,
        reward_model=reward_model,
        policies=policies,
        policy=policy,
        outline=outline,
    )
