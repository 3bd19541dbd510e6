"""The `sft` component."""

from typing import Any

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from images.images import TRAIN


@dsl.component(base_image=TRAIN, install_kfp_package=False)
def sft(
    labelled: Input[Dataset],
    model: str,
    work_uri: str,
    checkpoint: Output[Model],
    selection: str = "selected",
    role: str = "student",
    variant: str = "",
    config: dict[str, Any] = {},
    train_jobs: dict[str, Any] = {},
) -> None:
    """Warm the student up on the teacher's completions, with TRL and DeepSpeed.

    Args:
        labelled: Manifest of the teacher's labelled completions.
        model: URI of the student's Hugging Face folder; of the teacher's with `role: teacher`.
        work_uri: Prefix in the object store for all results; the same one finds finished work again.
        config: Settings of all stages; this one reads `sft`, `student`, `task` and `seed`.
        selection: `selected` trains on the completions that agree with the pseudo label, `all` on every one.
        role: Whose weights are tuned: `student`, or, to compare with, `teacher`.
        variant: What an ablation changes in `config`, as `sft.num_epochs=4`; the output is named after it.
        train_jobs: Of what a training on several nodes (`config.sft.deepspeed.nodes`) makes its TrainJob:
            the output of `preflight`, or any of `runtime`, `queue`, `priority_class`, `s3_secret`, `nodes`.

    Returns:
        checkpoint: Manifest of the warmed-up student, named `sft_selected` or `sft_all`; of the teacher
            `teacher_selected` or `teacher_all`.
    """
    from limbeck import tasks

    tasks.sft(
        labelled=labelled,
        model=model,
        work_uri=work_uri,
        config=config,
        checkpoint=checkpoint,
        selection=selection,
        role=role,
        variant=variant,
        train_jobs=train_jobs,
    )
