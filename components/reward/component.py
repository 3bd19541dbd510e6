"""The `reward` component."""

from typing import Any

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from images.images import TRAIN


@dsl.component(base_image=TRAIN, install_kfp_package=False)
def reward(
    teacher_labelled: Input[Dataset],
    student_labelled: Input[Dataset],
    checkpoint: Input[Model],
    work_uri: str,
    reward_model: Output[Model],
    metrics: Output[Metrics],
    teacher: str = "",
    variant: str = "",
    config: dict[str, Any] = {},
    train_jobs: dict[str, Any] = {},
) -> None:
    """Train the reward model on labelled completions of teacher and student, with DeepSpeed.

    Stops the run when its AUC on student completions of unseen prompts is below `reward.min_auc`.

    Args:
        teacher_labelled: Manifest of the teacher's labelled completions.
        student_labelled: Manifest of the warmed-up student's completions, labelled by the same pseudo labels.
        checkpoint: Manifest of the warmed-up student, from which the reward model starts by default.
        work_uri: Prefix in the object store for all results; the same one finds finished work again.
        teacher: URI of the teacher's Hugging Face folder; read when `reward.init` is `teacher`.
        variant: What an ablation changes in `config`, as `reward.source_weight=0`; the output bears it.
        config: Settings of all stages; this one reads `reward`, `task`, `seed` and the model it starts from.
        train_jobs: Of what a training on several nodes (`config.reward.deepspeed.nodes`) makes its TrainJob:
            the output of `preflight`, or any of `runtime`, `queue`, `priority_class`, `s3_secret`, `nodes`.

    Returns:
        reward_model: Manifest of the reward model.
        metrics: AUC, pair accuracy and calibration on held-out prompts, by source.
    """
    from limbeck import tasks

    tasks.reward(
        teacher_labelled=teacher_labelled,
        student_labelled=student_labelled,
        checkpoint=checkpoint,
        work_uri=work_uri,
        config=config,
        reward_model=reward_model,
        metrics=metrics,
        teacher=teacher,
        variant=variant,
        train_jobs=train_jobs,
    )
