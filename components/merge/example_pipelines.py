"""`merge`: a model answers the prompts of a data set in several tasks, and what they made becomes one."""

from typing import Any

from kfp import dsl

from limbeck.components import generate, merge, prepare, shards


@dsl.pipeline(name="example-merge")
def example(work_uri: str, data: str, model: str, num_shards: int = 2, config: dict[str, Any] = {}) -> None:
    """Answer every training prompt of a data set in parallel."""
    prompts = prepare(data=data, work_uri=work_uri, config=config).outputs["prompts"]
    with dsl.ParallelFor(shards(num_shards=num_shards).output) as shard:
        answered = generate(
            prompts=prompts,
            model=model,
            work_uri=work_uri,
            shard=shard,
            num_shards=num_shards,
            config=config,
        )
        answered.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
    merge(shards=dsl.Collected(answered.outputs["completions"]), config=config)
