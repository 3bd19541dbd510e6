"""The `evaluate` component."""

from typing import Any

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from images.images import GENERATE


@dsl.component(base_image=GENERATE, install_kfp_package=False)
def evaluate(
    heldout: Input[Dataset],
    gold: Input[Dataset],
    work_uri: str,
    results: Output[Dataset],
    metrics: Output[Metrics],
    name: str = "",
    model: str = "",
    checkpoint: Input[Model] | None = None,
    judge: str = "",
    models: list[str] = [],
    shard: int = 0,
    num_shards: int = 1,
    config: dict[str, Any] = {},
) -> None:
    """Answer the held-out prompts, greedily and sampled, and compare with the gold answers.

    Answers to open questions (`task.kind: open`) are judged instead: right are those that are judged good.

    Args:
        heldout: Manifest of held-out prompts.
        gold: Manifest of gold answers. Nothing made here goes into training.
        work_uri: Prefix in the object store for all results; the same one finds finished work again.
        name: What the report calls the model; by default its folder. A checkpoint goes by its own name.
        model: URI of the Hugging Face folder to evaluate; not read when `checkpoint` is given.
        checkpoint: Manifest of the checkpoint to evaluate; without it `model` is.
        judge: URI of the Hugging Face folder of the teacher, or its name at its server, which judges open
            answers; not read for other tasks.
        models: URIs of several Hugging Face folders, instead of `model`: one loop then goes over the shards
            of all of them, those of the first one first.
        shard: Which of the tasks that share the prompts this is, from 0; with `models`, of all their tasks.
        num_shards: How many tasks share the prompts of a model; a run may go on with another number.
        config: Settings of all stages; this one reads `evaluate`, `engine`, `task`, `seed` and the model's;
            for open answers `judge`, `label` and `teacher` too.

    Returns:
        results: Manifest of one row an answer; of a shard, for `merge` or, with `models`, for `report`.
        metrics: Accuracy by decoding, of a shard on its own prompts.
    """
    from limbeck import tasks

    tasks.evaluate(
        heldout=heldout,
        gold=gold,
        work_uri=work_uri,
        config=config,
        results=results,
        metrics=metrics,
        name=name,
        model=model,
        checkpoint=checkpoint,
        judge=judge,
        models=models,
        shard=shard,
        num_shards=num_shards,
    )
