"""The `judge` component."""

from typing import Any

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from images.images import GENERATE


@dsl.component(base_image=GENERATE, install_kfp_package=False)
def judge(
    prompts: Input[Dataset],
    completions: Input[Dataset],
    model: str,
    work_uri: str,
    judgements: Output[Dataset],
    shard: int = 0,
    num_shards: int = 1,
    config: dict[str, Any] = {},
) -> None:
    """Let a model judge completions: P(correct) of each. In the method the teacher judges its own.

    Of open questions (`task.kind: open`) it is P(good), and the teacher judges the student's too.

    P(correct) of a completion is the probability of the judge prompt's yes over yes and no.

    Args:
        prompts: Manifest of prompts.
        completions: Manifest of completions of them.
        model: URI of the judge's Hugging Face folder, usually the teacher.
        work_uri: Prefix in the object store for all results; the same one finds finished work again.
        shard: Which of the tasks that share the completions this is, from 0.
        num_shards: How many tasks share the completions; a run may go on with another number.
        config: Settings of all stages; this one reads `judge`, `teacher`, `engine` and `task`.

    Returns:
        judgements: Manifest of one P(correct) a completion; of a shard, for `merge`.
    """
    from limbeck import tasks

    tasks.judge(
        prompts=prompts,
        completions=completions,
        model=model,
        work_uri=work_uri,
        config=config,
        judgements=judgements,
        shard=shard,
        num_shards=num_shards,
    )
