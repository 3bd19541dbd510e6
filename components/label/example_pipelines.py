"""`label`: votes over the completions of all shards; with `label.rule: majority` no judge is needed."""

from typing import Any

from kfp import dsl

from limbeck.components import generate, label, merge, prepare, shards


@dsl.pipeline(name="example-label")
def example(
    work_uri: str,
    data: str,
    model: str,
    num_shards: int = 2,
    config: dict[str, Any] = {"label": {"rule": "majority"}},
) -> None:
    """Answer the prompts of a data set in parallel and vote."""
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
    merged = merge(shards=dsl.Collected(answered.outputs["completions"]), config=config)
    label(
        prompts=prompts,
        completions=merged.outputs["merged"],
        work_uri=work_uri,
        config=config,
    )
