"""The `distill` pipeline: data and rewards from a teacher into a student. Wiring only."""

from typing import Any

from kfp import dsl

from components.preflight.component import preflight
from pipelines.pods import Pods
from pipelines.wiring import Run, base_models, distil_data, distil_rewards, loop_items, prepared, tidied, told

STAGES = ["prepare", "generate", "judge", "label", "sft", "reward", "ppo", "evaluate", "report"]


def wire(
    pods: Pods,
    *,
    work_uri: Any,
    prompts: Any,
    heldout: Any,
    teacher: Any,
    student: Any,
    config: Any,
    num_shards: Any,
    ppo_rewards: Any,
    gpus: Any,
    resources: Any,
    gold_labels: bool = False,
    open_ended: bool = False,
) -> None:
    """Add all tasks to the pipeline being defined.

    `distill_minimal` gives most values itself; `distill_gold` lets gold answers be the labels; in
    `distill_open` the teacher judges the student's answers too.
    """
    with tidied(pods, config):
        checked = pods.first(
            preflight(
                work_uri=work_uri,
                stages=STAGES,
                prompts=prompts,
                heldout=heldout,
                teacher=teacher,
                student=student,
                gpus=gpus,
                resources=resources,
                config=config,
                ppo_rewards=ppo_rewards,
                num_shards=num_shards,
                gold_labels=gold_labels,
                open_ended=open_ended,
                **pods.nodes,
            )
        )
        run = Run(pods, checked.outputs, work_uri, config, judge=teacher if open_ended else None)
        data = prepared(run, checked, prompts, heldout)
        shard_items = loop_items(run, checked, num_shards)
        made = distil_data(run, data, shard_items, num_shards, teacher, student, gold_labels=gold_labels)
        refined = distil_rewards(
            run,
            data,
            shard_items,
            num_shards,
            ppo_rewards,
            teacher=teacher,
            labels=made.labels,
            labelled=made.labelled,
            student=made.student,
        )
        told(
            run,
            data,
            made.sft_results,
            prompts=data["prompts"],
            completions=made.teacher_completions,
            judgements=made.judgements,
            labels=made.labels,
            student_completions=refined.student_completions,
            sft_checkpoints=made.sft_checkpoints,
            reward_model=refined.reward_model,
            policies=refined.policies,
            policy=refined.policy,
            policy_results=refined.policy_results,
            **base_models(run, data, teacher, student),
        )


@dsl.pipeline(name="distill")
def distill(
    work_uri: str,
    prompts: str,
    teacher: str,
    student: str,
    heldout: str = "",
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
    """Teach a small model what a large one knows, and how it judges, without any gold answer.

    The teacher answers and judges; judged votes give pseudo labels; the student is warmed up on the
    selected completions; a reward model learns from both models' completions; PPO refines the student.

    Args:
        work_uri: Prefix in the object store for all results; the same one finds finished stages again.
        prompts: Data set: a file or folder (JSONL, JSON, Parquet, CSV) or `hf://`; columns `prompt` and, to
            measure with, `answer`.
        teacher: URI of the larger model's Hugging Face folder; its name at its server with
            `config.teacher.sampler`: `openai`.
        student: URI of the smaller model's Hugging Face folder.
        heldout: The same for held-out prompts; empty holds out a part of `prompts`.
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
    wire(
        pods,
        work_uri=work_uri,
        prompts=prompts,
        heldout=heldout,
        teacher=teacher,
        student=student,
        config=config,
        num_shards=num_shards,
        ppo_rewards=ppo_rewards,
        gpus=gpus,
        resources=resources,
    )
