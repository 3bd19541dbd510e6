"""The `distill_open` pipeline: `distill` for open questions, where the teacher judges. Wiring only."""

from typing import Any

from kfp import dsl

from pipelines.distill.pipeline import wire
from pipelines.pods import Pods


@dsl.pipeline(name="distill-open")
def distill_open(
    work_uri: str,
    prompts: str,
    teacher: str,
    student: str,
    heldout: str = "",
    config: dict[str, Any] = {},
    num_shards: int = 1,
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
    """Teach a small model to answer open questions as well as a large one's judgement asks for.

    No two answers to such a question are the same, so there are no votes and no agreement: the teacher judges
    its own completions, the student's and the held-out answers. It wants `task: {kind: open}` and
    `label: {rule: judge}` in its config. The judge is the teacher: what that is worth, docs/answers.md says.

    Args:
        work_uri: Prefix in the object store for all results; the same one finds finished stages again.
        prompts: Data set: a file or folder (JSONL, JSON, Parquet, CSV) or `hf://`; column `prompt`.
        teacher: URI of the larger model's Hugging Face folder; its name at its server with
            `config.teacher.sampler`: `openai`.
        student: URI of the smaller model's Hugging Face folder.
        heldout: The same for held-out prompts; empty holds out a part of `prompts`.
        config: Settings of all stages, as under `config` in a run file.
        num_shards: Into how many tasks generating and judging are split.
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
        ppo_rewards=["model"],
        gpus=gpus,
        resources=resources,
        open_ended=True,
    )
