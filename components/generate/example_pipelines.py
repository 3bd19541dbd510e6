"""`generate`: a model answers the prompts of a data set."""

from typing import Any

from kfp import dsl

from limbeck.components import generate, prepare


@dsl.pipeline(name="example-generate")
def example(work_uri: str, data: str, model: str, config: dict[str, Any] = {}) -> None:
    """Answer every training prompt of a data set."""
    prepared = prepare(data=data, work_uri=work_uri, config=config)
    answered = generate(prompts=prepared.outputs["prompts"], model=model, work_uri=work_uri, config=config)
    answered.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
