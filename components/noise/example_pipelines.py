"""`noise`: labels of which a fifth is wrong, made of those of an earlier run."""

from typing import Any

from kfp import dsl

from limbeck.components import load, noise


@dsl.pipeline(name="example-noise")
def example(work_uri: str, label_uri: str, student_uri: str, config: dict[str, Any] = {}) -> None:
    """Take finished labels and make some of them wrong."""
    noise(
        labels=load(uri=label_uri, kind="labels").outputs["loaded"],
        teacher_labelled=load(uri=label_uri, kind="labelled").outputs["loaded"],
        student_labelled=load(uri=student_uri, kind="labelled").outputs["loaded"],
        work_uri=work_uri,
        variant="label.noise=0.2",
        config=config,
    )
