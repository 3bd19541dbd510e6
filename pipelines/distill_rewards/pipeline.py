"""The `distill_rewards` pipeline: from a warmed-up student and labelled data to a refined policy."""

from typing import Any

from kfp import dsl

from components.preflight.component import preflight
from pipelines.pods import Pods
from pipelines.wiring import Run, distil_rewards, evaluated, loaded, loop_items, tidied, told

STAGES = ["generate", "label", "reward", "ppo", "evaluate", "report"]
PARTS = ("prompts", "heldout", "gold")


@dsl.pipeline(name="distill-rewards")
def distill_rewards(
    work_uri: str,
    prepared_uri: str,
    label_uri: str,
    checkpoint: str,
    teacher: str = "",
    config: dict[str, Any] = {},
    num_shards: int = 1,
    ppo_rewards: list[str] = ["model", "mixed", "agreement"],
    gpus: int = 1,
    gpu_resource: str = "nvidia.com/gpu",
    resources: dict[str, Any] = {},
    train_jobs: dict[str, Any] = {},
    node_selector: dict[str, Any] = {},
    node_affinity: dict[str, Any] = {},
    tolerations: list[dict[str, Any]] = [],
    s3_secret: str = "limbeck-s3",
    api_secret: str = "limbeck-api",
    image_pull_secret: str = "limbeck-pull",
) -> None:
    """Refine a student that is warmed up already, by a reward model and PPO.

    Args:
        work_uri: Prefix in the object store for all results; the same one finds finished stages again.
        prepared_uri: Prefix of a finished `prepare`, as `limbeck status` shows it.
        label_uri: Prefix of a finished `label` of the teacher's completions of these prompts.
        checkpoint: URI of the warmed-up student: a finished `sft`, or any Hugging Face folder.
        teacher: URI of the teacher's Hugging Face folder, or its name at its server; read when `reward.init`
            is `teacher`, and for the reward `judge`.
        config: Settings of all stages, as under `config` in a run file.
        num_shards: Into how many tasks generating and judging are split.
        ppo_rewards: One PPO run for each: `model`, `mixed`, `agreement`, `judge`.
        gpus: GPUs of each task that uses some; 0 asks for none.
        gpu_resource: What the cluster calls its GPUs.
        resources: CPU, memory and GPUs by stage, where the defaults do not fit:
            `{"ppo": {"cpu": "16", "memory": "256Gi", "gpus": 2}}`.
        train_jobs: Kueue's queue and priority, and the runtime, of trainings on several nodes:
            `{"queue": "gpus", "priority_class": "limbeck-batch", "runtime": "limbeck"}`.
        node_selector: Labels that the nodes of GPU tasks must have, such as the GPU's model.
        node_affinity: Kubernetes nodeAffinity of GPU tasks.
        tolerations: Kubernetes tolerations of GPU tasks.
        s3_secret: Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL and, optional,
            AWS_REGION.
        api_secret: Secret with OPENAI_API_KEY, for a teacher that a server runs (`config.teacher.sampler`:
            `openai`); it need not exist where no key is wanted.
        image_pull_secret: Secret for pulling images; it need not exist where the registry is open.
    """
    pods = Pods(
        s3_secret=s3_secret,
        api_secret=api_secret,
        image_pull_secret=image_pull_secret,
        gpu_resource=gpu_resource,
        node_selector=node_selector,
        node_affinity=node_affinity,
        tolerations=tolerations,
        train_jobs=train_jobs,
    )
    with tidied(pods, config):
        checked = pods.first(
            preflight(
                work_uri=work_uri,
                stages=STAGES,
                prepared_uri=prepared_uri,
                label_uri=label_uri,
                checkpoint=checkpoint,
                teacher=teacher,
                gpus=gpus,
                resources=resources,
                config=config,
                ppo_rewards=ppo_rewards,
                num_shards=num_shards,
                **pods.nodes,
            )
        )
        run = Run(pods, checked.outputs, work_uri, config)
        data = {part: loaded(run, checked, prepared_uri, part) for part in PARTS}
        labels, labelled = (loaded(run, checked, label_uri, part) for part in ("labels", "labelled"))
        student = loaded(run, checked, checkpoint, "checkpoint")
        refined = distil_rewards(
            run,
            data,
            loop_items(run, checked, num_shards),
            num_shards,
            ppo_rewards,
            teacher=teacher,
            labels=labels,
            labelled=labelled,
            student=student,
        )
        told(
            run,
            data,
            refined.policy_results,
            prompts=data["prompts"],
            labels=labels,
            student_completions=refined.student_completions,
            reward_model=refined.reward_model,
            policies=refined.policies,
            policy=refined.policy,
            student_results=evaluated(run, data, "evaluate sft", checkpoint=student),
        )
