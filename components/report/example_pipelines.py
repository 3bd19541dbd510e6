"""`report`: a page that compares several models on one data set."""

from typing import Any

from kfp import dsl

from limbeck.components import evaluate, prepare, report


@dsl.pipeline(name="example-report")
def example(work_uri: str, heldout_data: str, models: list[str], config: dict[str, Any] = {}) -> None:
    """Measure models, each a Hugging Face folder, and compare them."""
    prepared = prepare(data="", heldout_data=heldout_data, work_uri=work_uri, config=config)
    heldout, gold = prepared.outputs["heldout"], prepared.outputs["gold"]
    with dsl.ParallelFor(models) as model:
        measured = evaluate(heldout=heldout, gold=gold, model=model, work_uri=work_uri, config=config)
        measured.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
    report(
        heldout=heldout,
        gold=gold,
        results=dsl.Collected(measured.outputs["results"]),
        work_uri=work_uri,
        config=config,
    )
