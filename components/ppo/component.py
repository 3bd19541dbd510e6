"""The `ppo` component."""

from typing import Any

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from images.images import TRAIN


@dsl.component(base_image=TRAIN, install_kfp_package=False)
def ppo(
    prompts: Input[Dataset],
    labels: Input[Dataset],
    checkpoint: Input[Model],
    reward_model: Input[Model],
    work_uri: str,
    policy: Output[Model],
    metrics: Output[Metrics],
    reward: str = "model",
    teacher: str = "",
    variant: str = "",
    config: dict[str, Any] = {},
    train_jobs: dict[str, Any] = {},
) -> None:
    """Refine the warmed-up student by PPO, with rollouts from vLLM or transformers and updates by DeepSpeed.

    The checkpoint kept is the one that agrees best with the pseudo labels of validation prompts. Of open
    questions nothing can agree: the last one is kept whose KL is within `ppo.target_kl`.

    Args:
        prompts: Manifest of training prompts.
        labels: Manifest of their pseudo labels.
        checkpoint: Manifest of the warmed-up student: the policy's start and its reference.
        reward_model: Manifest of the reward model.
        work_uri: Prefix in the object store for all results; the same one finds finished work again.
        config: Settings of all stages; this one reads `ppo`, `student`, `engine`, `task` and `seed`, and for
            the reward `judge` also `judge`, `teacher`, `openai` and `label.calibrate`.
        reward: What scores a rollout: `model` (the reward model), `agreement` (1 if the answer is the pseudo
            label, else 0), `mixed` (agreement where the prompt has a label, the model elsewhere), or `judge`
            (the teacher's P(correct)); of open questions `model` or `judge`.
        teacher: URI of the teacher's Hugging Face folder, or its name at its server; read for the reward
            `judge` alone.
        variant: What an ablation changes in `config`, as `ppo.kl_coef=0.1`; the output is named after it.
        train_jobs: Of what a training on several nodes (`config.ppo.deepspeed.nodes`) makes its TrainJob:
            the output of `preflight`, or any of `runtime`, `queue`, `priority_class`, `s3_secret`, `nodes`.

    Returns:
        policy: Manifest of the best policy, named `ppo_` and its reward: `ppo_model`, `ppo_judge`, ...
        metrics: Validation agreement, KL and rewards of the run.
    """
    from limbeck import tasks

    tasks.ppo(
        prompts=prompts,
        labels=labels,
        checkpoint=checkpoint,
        reward_model=reward_model,
        work_uri=work_uri,
        config=config,
        policy=policy,
        metrics=metrics,
        reward=reward,
        teacher=teacher,
        variant=variant,
        train_jobs=train_jobs,
    )
