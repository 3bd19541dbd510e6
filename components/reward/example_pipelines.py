"""`reward`: a reward model is trained on what earlier runs labelled."""

from typing import Any

from kfp import dsl

from limbeck.components import load, reward


@dsl.pipeline(name="example-reward")
def example(
    work_uri: str,
    teacher_label_uri: str,
    student_label_uri: str,
    checkpoint: str,
    config: dict[str, Any] = {},
) -> None:
    """Train a reward model, starting from a warmed-up student."""
    student = load(uri=checkpoint, kind="checkpoint")
    teacher_labelled = load(uri=teacher_label_uri, kind="labelled")
    student_labelled = load(uri=student_label_uri, kind="labelled")
    trained = reward(
        teacher_labelled=teacher_labelled.outputs["loaded"],
        student_labelled=student_labelled.outputs["loaded"],
        checkpoint=student.outputs["loaded"],
        work_uri=work_uri,
        config=config,
    )
    trained.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
