"""`evaluate`: the held-out accuracy of any model."""

from typing import Any

from kfp import dsl

from limbeck.components import evaluate, prepare


@dsl.pipeline(name="example-evaluate")
def example(work_uri: str, heldout_data: str, model: str, config: dict[str, Any] = {}) -> None:
    """Measure one model on one data set."""
    prepared = prepare(data="", heldout_data=heldout_data, work_uri=work_uri, config=config)
    measured = evaluate(
        heldout=prepared.outputs["heldout"],
        gold=prepared.outputs["gold"],
        model=model,
        work_uri=work_uri,
        config=config,
    )
    measured.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
