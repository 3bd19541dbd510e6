"""`pick`: of two warmed-up students, the one that was trained on selected completions goes on."""

from typing import Any

from kfp import dsl

from limbeck.components import load, pick, sft


@dsl.pipeline(name="example-pick")
def example(work_uri: str, label_uri: str, model: str, config: dict[str, Any] = {}) -> None:
    """Warm a student up in two ways and take one of them."""
    labelled = load(uri=label_uri, kind="labelled").outputs["loaded"]
    with dsl.ParallelFor(["selected", "all"]) as selection:
        trained = sft(labelled=labelled, model=model, work_uri=work_uri, selection=selection, config=config)
        trained.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
    pick(checkpoints=dsl.Collected(trained.outputs["checkpoint"]), names=["sft_selected"])
