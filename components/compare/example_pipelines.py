"""`compare`: two warmed-up students beside each other, corrected for the number of comparisons."""

from typing import Any

from kfp import dsl

from limbeck.components import compare, evaluate, load, prepare, sft


@dsl.pipeline(name="example-compare")
def example(
    work_uri: str, heldout_data: str, label_uri: str, model: str, config: dict[str, Any] = {}
) -> None:
    """Warm a student up in two ways, measure both, and compare them."""
    prepared = prepare(data="", heldout_data=heldout_data, work_uri=work_uri, config=config)
    heldout, gold = prepared.outputs["heldout"], prepared.outputs["gold"]
    labelled = load(uri=label_uri, kind="labelled").outputs["loaded"]
    with dsl.ParallelFor(["selected", "all"]) as selection:
        trained = sft(labelled=labelled, model=model, work_uri=work_uri, selection=selection, config=config)
        trained.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
        measured = evaluate(
            heldout=heldout,
            gold=gold,
            checkpoint=trained.outputs["checkpoint"],
            work_uri=work_uri,
            config=config,
        )
        measured.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
    compare(
        sft_results=dsl.Collected(measured.outputs["results"]),
        sft_checkpoints=dsl.Collected(trained.outputs["checkpoint"]),
        work_uri=work_uri,
        config=config,
    )
