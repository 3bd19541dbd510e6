"""`match`: SFT once more, at the compute of a whole run that is finished."""

from typing import Any

from kfp import dsl

from limbeck.components import load, match, sft


@dsl.pipeline(name="example-match")
def example(
    work_uri: str,
    label_uri: str,
    student_uri: str,
    sft_uri: str,
    reward_uri: str,
    policy_uris: list[str],
    model: str,
    config: dict[str, Any] = {},
) -> None:
    """Count what a run took, and tune the student for as long."""
    with dsl.ParallelFor(policy_uris) as uri:
        policy = load(uri=uri, kind="checkpoint")
    epochs = match(
        checkpoint=load(uri=sft_uri, kind="checkpoint").outputs["loaded"],
        student_labelled=load(uri=student_uri, kind="labelled").outputs["loaded"],
        reward_model=load(uri=reward_uri, kind="reward_model").outputs["loaded"],
        policies=dsl.Collected(policy.outputs["loaded"]),
        config=config,
    )
    labelled = load(uri=label_uri, kind="labelled").outputs["loaded"]
    longer = sft(labelled=labelled, model=model, work_uri=work_uri, variant=epochs.output, config=config)
    longer.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
