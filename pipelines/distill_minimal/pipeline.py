"""The `distill_minimal` pipeline: `distill` with five parameters and defaults for the rest. Wiring only."""

from kfp import dsl

from pipelines.distill.pipeline import wire
from pipelines.pods import Pods


@dsl.pipeline(name="distill-minimal")
def distill_minimal(
    work_uri: str,
    prompts: str,
    teacher: str,
    student: str,
    s3_secret: str = "limbeck-s3",
) -> None:
    """Teach a small model what a large one knows, with one GPU a task and sane settings.

    Args:
        work_uri: Prefix in the object store for all results; the same one finds finished stages again.
        prompts: Data set: a file or folder (JSONL, JSON, Parquet, CSV) or `hf://`; columns `prompt` and, to
            measure with, `answer`.
        teacher: URI of the larger model's Hugging Face folder.
        student: URI of the smaller model's Hugging Face folder.
        s3_secret: Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL and, optional,
            AWS_REGION.
    """
    wire(
        Pods(
            s3_secret=s3_secret,
            image_pull_secret="limbeck-pull",
            gpu_resource="nvidia.com/gpu",
            node_selector={},
            node_affinity={},
            tolerations=[],
        ),
        work_uri=work_uri,
        prompts=prompts,
        heldout="",
        teacher=teacher,
        student=student,
        config={},
        num_shards=1,
        num_evaluate_shards=1,
        ppo_rewards=["model", "mixed"],
        gpus=1,
        resources={},
    )
