"""The `evaluate` pipeline: several models on one set of held-out prompts. Wiring only."""

from typing import Any

from kfp import dsl

from components.preflight.component import preflight
from pipelines.pods import Pods
from pipelines.wiring import begun, evaluated_all, prepared, told

STAGES = ["prepare", "evaluate", "report"]


# Not "evaluate": Kubeflow takes a pipeline that is called like one of its components for that component.
@dsl.pipeline(name="evaluate-models")
def evaluate(
    work_uri: str,
    heldout: str,
    models: list[str],
    teacher: str = "",
    num_evaluate_shards: int = 1,
    config: dict[str, Any] = {},
    gpus: int = 1,
    gpu_resource: str = "nvidia.com/gpu",
    resources: dict[str, Any] = {},
    node_selector: dict[str, Any] = {},
    node_affinity: dict[str, Any] = {},
    tolerations: list[dict[str, Any]] = [],
    s3_secret: str = "limbeck-s3",
    api_secret: str = "limbeck-api",
    image_pull_secret: str = "limbeck-pull",
) -> None:
    """Compare models on held-out prompts, with paired intervals of the difference to the first one.

    Args:
        work_uri: Prefix in the object store for all results; the same one finds finished stages again.
        heldout: Held-out data set: a file or folder (JSONL, JSON, Parquet, CSV) or `hf://`; columns `prompt`
            and `answer`.
        models: URIs of Hugging Face folders; the others are compared with the first.
        teacher: URI of the Hugging Face folder of the model that judges answers to open questions
            (`task.kind`: `open`), or its name at its server; not read for others.
        num_evaluate_shards: How many tasks share the evaluation of each model.
        config: Settings of all stages, as under `config` in a run file.
        gpus: GPUs of each task that uses some; 0 asks for none.
        gpu_resource: What the cluster calls its GPUs.
        resources: CPU, memory and GPUs by stage, where the defaults do not fit:
            `{"ppo": {"cpu": "16", "memory": "256Gi", "gpus": 2}}`.
        node_selector: Labels that the nodes of GPU tasks must have, such as the GPU's model.
        node_affinity: Kubernetes nodeAffinity of GPU tasks.
        tolerations: Kubernetes tolerations of GPU tasks.
        s3_secret: Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL and, optional,
            AWS_REGION.
        api_secret: Secret with OPENAI_API_KEY, for a judge that a server runs (`config.teacher.sampler`:
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
    )
    checked = pods.first(
        preflight(
            work_uri=work_uri,
            stages=STAGES,
            heldout=heldout,
            models=models,
            teacher=teacher,
            num_evaluate_shards=num_evaluate_shards,
            gpus=gpus,
            resources=resources,
            config=config,
            **pods.nodes,
        )
    )
    run = begun(pods, checked, work_uri, config, None, num_evaluate_shards, judge=teacher, models=models)
    data = prepared(run, checked, "", heldout)
    told(run, data, evaluated_all(run, data, models))
