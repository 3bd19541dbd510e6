"""The `preflight` component."""

from typing import Any, NamedTuple

from kfp import dsl

from images.images import TOOLS


@dsl.component(base_image=TOOLS, install_kfp_package=False)
def preflight(
    work_uri: str,
    stages: list[str],
    prompts: str = "",
    heldout: str = "",
    teacher: str = "",
    student: str = "",
    models: list[str] = [],
    prepared_uri: str = "",
    label_uri: str = "",
    checkpoint: str = "",
    num_shards: int = 1,
    num_evaluate_shards: int = 1,
    ppo_rewards: list[str] = ["model"],
    reward_variants: list[str] = ["reward.source_weight=0"],
    noise_variants: list[str] = ["label.noise=0.1"],
    gold_labels: bool = False,
    open_ended: bool = False,
    gpus: int = 1,
    gpu_resource: str = "nvidia.com/gpu",
    node_selector: dict[str, str] = {},
    node_affinity: dict[str, Any] = {},
    tolerations: list[dict[str, Any]] = [],
    resources: dict[str, Any] = {},
    train_jobs: dict[str, Any] = {},
    s3_secret: str = "limbeck-s3",
    api_secret: str = "limbeck-api",
    config: dict[str, Any] = {},
) -> NamedTuple(
    "Requests",
    [
        ("prepare_cpu", str),
        ("prepare_memory", str),
        ("generate_cpu", str),
        ("generate_memory", str),
        ("generate_gpus", str),
        ("generate_teacher_cpu", str),
        ("generate_teacher_memory", str),
        ("generate_teacher_gpus", str),
        ("judge_cpu", str),
        ("judge_memory", str),
        ("judge_gpus", str),
        ("label_cpu", str),
        ("label_memory", str),
        ("sft_cpu", str),
        ("sft_memory", str),
        ("sft_gpus", str),
        ("reward_cpu", str),
        ("reward_memory", str),
        ("reward_gpus", str),
        ("ppo_cpu", str),
        ("ppo_memory", str),
        ("ppo_gpus", str),
        ("evaluate_cpu", str),
        ("evaluate_memory", str),
        ("evaluate_gpus", str),
        ("evaluate_teacher_cpu", str),
        ("evaluate_teacher_memory", str),
        ("evaluate_teacher_gpus", str),
        ("report_cpu", str),
        ("report_memory", str),
        ("sft_node_selector", dict),
        ("sft_node_affinity", dict),
        ("sft_tolerations", list),
        ("reward_node_selector", dict),
        ("reward_node_affinity", dict),
        ("reward_tolerations", list),
        ("ppo_node_selector", dict),
        ("ppo_node_affinity", dict),
        ("ppo_tolerations", list),
        ("train_jobs", dict),
        ("outline", str),
    ],
):
    """Check settings, object store, data, models and GPUs before anything costs time.

    All findings come at once, each with its remedy. Gives what each stage asks of its node, so that it
    can be chosen when a run starts.

    Args:
        work_uri: Prefix in the object store for all results; the same one finds finished stages again.
        stages: The stages that will run; what they need is checked.
        prompts: Address of the data set: a file or folder of JSONL, JSON, Parquet or CSV, or `hf://`.
        heldout: Address of the held-out data set; may be empty.
        teacher: URI of the teacher's Hugging Face folder, or its name at its server.
        student: URI of the student's Hugging Face folder.
        models: URIs of further Hugging Face folders.
        prepared_uri: Prefix of a finished `prepare` to start from; may be empty.
        label_uri: Prefix of a finished `label` to start from; may be empty.
        checkpoint: URI of a warmed-up student to start from; may be empty.
        num_shards: How many tasks share each `generate` and `judge`.
        num_evaluate_shards: How many tasks share the evaluation of each model.
        ppo_rewards: What the PPO runs earn: `model`, `mixed`, `agreement`, `judge`; one of the first two at
            least.
        reward_variants: Variants of an ablation, `section.field=value`, each with a reward model of its own.
        noise_variants: Variants of an ablation, each with labels of its own, such as `label.noise=0.1`.
        gold_labels: Whether the pipeline gives gold answers to `label`: for `label.rule: gold` and no other.
        open_ended: Whether the pipeline judges the student's completions: for `task.kind: open` and no other.
        gpus: GPUs of each task that uses some.
        gpu_resource: What the cluster calls its GPUs.
        node_selector: Labels that the nodes of GPU tasks must have.
        node_affinity: Kubernetes nodeAffinity of GPU tasks.
        tolerations: Kubernetes tolerations of GPU tasks.
        resources: CPU, memory and GPUs by stage, where the defaults do not fit:
            `{"ppo": {"cpu": "16", "memory": "256Gi", "gpus": 2}}`.
        train_jobs: What the run says of its TrainJobs: `runtime`, `queue`, `priority_class`.
        s3_secret: Secret of the object store, for the nodes of TrainJobs.
        api_secret: Secret with OPENAI_API_KEY, for the same.
        config: Settings of all stages, as under `config` in a run file.

    Returns:
        prepare_cpu: CPUs of each `prepare` task.
        prepare_memory: Memory of each `prepare` task.
        generate_cpu: CPUs of each `generate` task.
        generate_memory: Memory of each `generate` task.
        generate_gpus: GPUs of each `generate` task.
        generate_teacher_cpu: CPUs of each `generate` task in which the teacher answers.
        generate_teacher_memory: Memory of each `generate` task in which the teacher answers.
        generate_teacher_gpus: GPUs of each `generate` task in which the teacher answers; none of a black box.
        judge_cpu: CPUs of each `judge` task.
        judge_memory: Memory of each `judge` task.
        judge_gpus: GPUs of each `judge` task.
        label_cpu: CPUs of each `label` task.
        label_memory: Memory of each `label` task.
        sft_cpu: CPUs of each `sft` task.
        sft_memory: Memory of each `sft` task.
        sft_gpus: GPUs of each `sft` task.
        reward_cpu: CPUs of each `reward` task.
        reward_memory: Memory of each `reward` task.
        reward_gpus: GPUs of each `reward` task.
        ppo_cpu: CPUs of each `ppo` task.
        ppo_memory: Memory of each `ppo` task.
        ppo_gpus: GPUs of each `ppo` task.
        evaluate_cpu: CPUs of each `evaluate` task.
        evaluate_memory: Memory of each `evaluate` task.
        evaluate_gpus: GPUs of each `evaluate` task.
        evaluate_teacher_cpu: CPUs of each `evaluate` task in which the teacher answers.
        evaluate_teacher_memory: Memory of each `evaluate` task in which the teacher answers.
        evaluate_teacher_gpus: GPUs of each `evaluate` task in which the teacher answers; none of a black box.
        report_cpu: CPUs of each `report` task.
        report_memory: Memory of each `report` task.
        sft_node_selector: Labels of the nodes of each `sft` task; none where it waits for a TrainJob.
        sft_node_affinity: nodeAffinity of each `sft` task; likewise.
        sft_tolerations: Tolerations of each `sft` task; likewise.
        reward_node_selector: Labels of the nodes of each `reward` task; none where it waits for a TrainJob.
        reward_node_affinity: nodeAffinity of each `reward` task; likewise.
        reward_tolerations: Tolerations of each `reward` task; likewise.
        ppo_node_selector: Labels of the nodes of each `ppo` task; none where it waits for a TrainJob.
        ppo_node_affinity: nodeAffinity of each `ppo` task; likewise.
        ppo_tolerations: Tolerations of each `ppo` task; likewise.
        train_jobs: What `sft`, `reward` and `ppo` make TrainJobs of; empty where each trains on one node.
        outline: What is known of the run, for `report`: stages, GPUs and the sizes of the models, as JSON.
    """
    from limbeck import tasks

    return tasks.preflight(
        work_uri=work_uri,
        stages=stages,
        prompts=prompts,
        heldout=heldout,
        teacher=teacher,
        student=student,
        models=models,
        prepared_uri=prepared_uri,
        label_uri=label_uri,
        checkpoint=checkpoint,
        num_shards=num_shards,
        num_evaluate_shards=num_evaluate_shards,
        ppo_rewards=ppo_rewards,
        reward_variants=reward_variants,
        noise_variants=noise_variants,
        gold_labels=gold_labels,
        open_ended=open_ended,
        gpus=gpus,
        gpu_resource=gpu_resource,
        node_selector=node_selector,
        node_affinity=node_affinity,
        tolerations=tolerations,
        resources=resources,
        train_jobs=train_jobs,
        s3_secret=s3_secret,
        api_secret=api_secret,
        config=config,
    )
