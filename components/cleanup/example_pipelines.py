"""`cleanup`: no TrainJob outlives its run, however that ends."""

from typing import Any

from kfp import dsl

from limbeck.components import cleanup, load, sft


@dsl.pipeline(name="example-cleanup")
def example(work_uri: str, label_uri: str, model: str, config: dict[str, Any] = {}) -> None:
    """Warm a student up on several nodes (`config.sft.deepspeed.nodes`)."""
    with dsl.ExitHandler(cleanup(config=config), name="run"):
        labelled = load(uri=label_uri, kind="labelled").outputs["loaded"]
        jobs = {"queue": "gpus"}
        sft(labelled=labelled, model=model, work_uri=work_uri, config=config, train_jobs=jobs)
