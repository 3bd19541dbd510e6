"""The `label` component."""

from typing import Any

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from images.images import TOOLS


@dsl.component(base_image=TOOLS, install_kfp_package=False)
def label(
    prompts: Input[Dataset],
    completions: Input[Dataset],
    work_uri: str,
    labels: Output[Dataset],
    labelled: Output[Dataset],
    judgements: Input[Dataset] | None = None,
    given_labels: Input[Dataset] | None = None,
    gold: Input[Dataset] | None = None,
    variant: str = "",
    config: dict[str, Any] = {},
) -> None:
    """Find one pseudo label a prompt by judged vote, and label every completion by agreement with it.

    No gold answer is read, but for the rule `gold`, an upper bound to compare with. Ties and weak majorities
    leave a prompt unlabelled, with the reason. Of open questions (`task.kind: open`) each completion goes by
    its own judgement.

    Args:
        prompts: Manifest of prompts.
        completions: Manifest of the completions to label, of all shards together: see `merge`.
        work_uri: Prefix in the object store for all results; the same one finds finished work again.
        config: Settings of all stages; this one reads `label` and `task`.
        judgements: Manifest of the judgements of them; not wanted with `given_labels`, unless the task is
            open, or where `label.rule` is `majority` or `gold`.
        given_labels: Manifest of pseudo labels to go by instead of voting, for the student's completions.
        gold: Manifest of gold answers, for `label.rule: gold` alone; refused with any other rule.
        variant: What an ablation changes in `config`, as `label.rule=gold`; the output is named after it.

    Returns:
        labels: Manifest of one pseudo label a prompt.
        labelled: Manifest of the completions with their pseudo-rewards; marks those selected for `sft`.
    """
    from limbeck import tasks

    tasks.label(
        prompts=prompts,
        completions=completions,
        work_uri=work_uri,
        config=config,
        labels=labels,
        labelled=labelled,
        judgements=judgements,
        given_labels=given_labels,
        gold=gold,
        variant=variant,
    )
