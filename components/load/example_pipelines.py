"""`load`: a checkpoint that another tool trained is evaluated, on prompts that an earlier run prepared."""

from typing import Any

from kfp import dsl

from limbeck.components import evaluate, load


@dsl.pipeline(name="example-load")
def example(work_uri: str, prepare_uri: str, checkpoint: str, config: dict[str, Any] = {}) -> None:
    """Bring three things into a pipeline that did not make them."""
    measured = evaluate(
        heldout=load(uri=prepare_uri, kind="heldout").outputs["loaded"],
        gold=load(uri=prepare_uri, kind="gold").outputs["loaded"],
        checkpoint=load(uri=checkpoint, kind="checkpoint", name="mine").outputs["loaded"],
        work_uri=work_uri,
        config=config,
    )
    measured.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
