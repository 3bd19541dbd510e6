"""The `match` component."""

from typing import Any

from kfp import dsl
from kfp.dsl import Dataset, Input, Model

from images.images import TOOLS


@dsl.component(base_image=TOOLS, install_kfp_package=False)
def match(
    checkpoint: Input[Model],
    student_labelled: Input[Dataset],
    reward_model: Input[Model],
    policies: Input[list[Model]],
    config: dict[str, Any] = {},
) -> str:
    """Find how long SFT alone must train to cost what SFT, reward model and PPO do together.

    Args:
        checkpoint: Manifest of the warmed-up student.
        student_labelled: Manifest of its labelled completions.
        reward_model: Manifest of the reward model.
        policies: Manifests of the policies, `ppo_model` among them.
        config: Settings of all stages; this one reads `sft`, `reward`, `ppo` and `student`.

    Returns:
        The number of epochs as a variant for `sft`, such as `sft.num_epochs=61.25`.
    """
    from limbeck import tasks

    return tasks.match(
        checkpoint=checkpoint,
        student_labelled=student_labelled,
        reward_model=reward_model,
        policies=policies,
        config=config,
    )
