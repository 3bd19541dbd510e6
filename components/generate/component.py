"""The `generate` component."""

from typing import Any

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from images.images import GENERATE


@dsl.component(base_image=GENERATE, install_kfp_package=False)
def generate(
    prompts: Input[Dataset],
    work_uri: str,
    completions: Output[Dataset],
    model: str = "",
    role: str = "teacher",
    shard: int = 0,
    num_shards: int = 1,
    checkpoint: Input[Model] | None = None,
    config: dict[str, Any] = {},
) -> None:
    """Answer every prompt several times, at several temperatures, with vLLM.

    Completions are written in parts, so a killed task goes on with the missing rows.

    Args:
        prompts: Manifest of prompts.
        work_uri: Prefix in the object store for all results; the same one finds finished work again.
        model: URI of the Hugging Face folder that answers; not read when `checkpoint` is given.
        role: Who answers: `teacher` or `student`. It chooses the sampling settings and marks the rows.
        shard: Which of the tasks that share the prompts this is, from 0.
        num_shards: How many tasks share the prompts; a run may go on with another number.
        checkpoint: Manifest of the checkpoint that answers; without it `model` does.
        config: Settings of all stages; this one reads `generate`, `engine`, `task`, `seed` and the role's.

    Returns:
        completions: Manifest of completions: temperature, seed, log-probability; of a shard, for `merge`.
    """
    from limbeck import tasks

    tasks.generate(
        prompts=prompts,
        work_uri=work_uri,
        config=config,
        completions=completions,
        model=model,
        role=role,
        shard=shard,
        num_shards=num_shards,
        checkpoint=checkpoint,
    )
