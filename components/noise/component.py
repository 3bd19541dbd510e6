"""The `noise` component."""

from typing import Any

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from images.images import TOOLS


@dsl.component(base_image=TOOLS, install_kfp_package=False)
def noise(
    labels: Input[Dataset],
    teacher_labelled: Input[Dataset],
    student_labelled: Input[Dataset],
    work_uri: str,
    noisy_labels: Output[Dataset],
    noisy_teacher: Output[Dataset],
    noisy_student: Output[Dataset],
    variant: str = "label.noise=0.2",
    config: dict[str, Any] = {},
) -> None:
    """Make a share of the pseudo labels wrong, to see what reward model and PPO bear.

    A wrong label is another answer that was given to the same prompt, or the label of another prompt. Nothing
    is generated anew: the completions are compared with the new labels.

    Args:
        labels: Manifest of pseudo labels.
        teacher_labelled: Manifest of the teacher's labelled completions.
        student_labelled: Manifest of the warmed-up student's labelled completions.
        work_uri: Prefix in the object store for all results; the same one finds finished work again.
        variant: The share, as `label.noise=0.2`; what is made bears it in its name.
        config: Settings of all stages; this one reads `task` and `seed`.

    Returns:
        noisy_labels: Manifest of the labels; replaced ones have the reason `noise`.
        noisy_teacher: Manifest of the teacher's completions, labelled by them.
        noisy_student: Manifest of the student's completions, labelled by them.
    """
    from limbeck import tasks

    tasks.noise(
        labels=labels,
        teacher_labelled=teacher_labelled,
        student_labelled=student_labelled,
        work_uri=work_uri,
        config=config,
        variant=variant,
        noisy_labels=noisy_labels,
        noisy_teacher=noisy_teacher,
        noisy_student=noisy_student,
    )
