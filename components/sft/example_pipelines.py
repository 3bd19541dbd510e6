"""`sft`: a student is trained on completions that an earlier run labelled."""

from typing import Any

from kfp import dsl

from limbeck.components import load, sft


@dsl.pipeline(name="example-sft")
def example(work_uri: str, label_uri: str, model: str, config: dict[str, Any] = {}) -> None:
    """Warm a student up; `label_uri` is the prefix of a finished `label`."""
    labelled = load(uri=label_uri, kind="labelled").outputs["loaded"]
    trained = sft(labelled=labelled, model=model, work_uri=work_uri, config=config)
    trained.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
