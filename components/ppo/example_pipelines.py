"""`ppo`: a student is refined by a reward model, both of them from elsewhere."""

from typing import Any

from kfp import dsl

from limbeck.components import load, ppo


@dsl.pipeline(name="example-ppo")
def example(
    work_uri: str,
    prepare_uri: str,
    label_uri: str,
    checkpoint: str,
    reward_uri: str,
    config: dict[str, Any] = {},
) -> None:
    """Refine a student; the URIs are prefixes of finished stages, or of checkpoint folders."""
    refined = ppo(
        prompts=load(uri=prepare_uri, kind="prompts").outputs["loaded"],
        labels=load(uri=label_uri, kind="labels").outputs["loaded"],
        checkpoint=load(uri=checkpoint, kind="checkpoint").outputs["loaded"],
        reward_model=load(uri=reward_uri, kind="reward_model").outputs["loaded"],
        work_uri=work_uri,
        reward="mixed",
        config=config,
    )
    refined.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
