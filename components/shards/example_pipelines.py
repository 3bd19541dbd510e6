"""`shards`: how many tasks answer in parallel is chosen when a run starts."""

from typing import Any

from kfp import dsl

from limbeck.components import generate, prepare, shards


@dsl.pipeline(name="example-shards")
def example(work_uri: str, data: str, model: str, num_shards: int = 4, config: dict[str, Any] = {}) -> None:
    """Answer the prompts of a data set in parallel."""
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
