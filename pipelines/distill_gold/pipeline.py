"""The `distill_gold` pipeline: `distill` with gold answers as labels, an upper bound. Wiring only."""

from typing import Any

from kfp import dsl

from pipelines.distill.pipeline import wire
from pipelines.pods import Pods


@dsl.pipeline(name="distill-gold")
def distill_gold(
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
    """Run all of `distill` with gold answers as labels: what the method could reach with perfect labels.

    An upper bound to compare a run with, never a result of the method. It wants `label: {rule: gold}` in its
    config; the report says what it is and promotes nothing.

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
        gold_labels=True,
    )
