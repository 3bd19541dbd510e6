"""The run file and the parameters of the pipelines: what a person sets for one run.

A run file (YAML) holds parameters of a pipeline under their own names. Which of them a pipeline takes,
and which it must have, is written in the compiled pipeline itself. This module imports nothing heavy.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, with_config
from typing_extensions import TypedDict

from limbeck.compiled import Compiled
from limbeck.config import Config, PpoReward, parse_config
from limbeck.errors import ConfigError
from limbeck.parameters import read_parameters
from limbeck.resources import Resources
from limbeck.section import Section, parse, plain
from limbeck.trainjob import TrainJobs
from limbeck.variants import check_swept

GPU_RESOURCE = r"^[a-z0-9][a-z0-9.-]*/[A-Za-z0-9][\w.-]*$"
"""A vendor's domain, and a name."""


@with_config(extra="forbid")
class NodeAffinity(TypedDict, total=False):
    """Kubernetes nodeAffinity."""

    requiredDuringSchedulingIgnoredDuringExecution: dict[str, Any]
    preferredDuringSchedulingIgnoredDuringExecution: list[dict[str, Any]]


@with_config(extra="forbid")
class Toleration(TypedDict, total=False):
    """A Kubernetes toleration."""

    key: str
    operator: Literal["Exists", "Equal"]
    value: str
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
    tolerationSeconds: int


class RunFile(Section):
    """Parameters of one run; a pipeline takes those that it declares."""

    work_uri: str = "s3://limbeck/work"
    """Where all results go; keep it the same over runs, so that finished stages are found again."""
    prompts: str = ""
    """JSONL, JSON, Parquet or CSV, or a folder of them: a local path, `s3://` or `hf://` (docs/data.md)."""
    heldout: str = ""
    """Held-out prompts, named like `prompts`; without it a part of `prompts` is held out."""
    teacher: str = ""
    """Hugging Face folder of the larger model, which answers and judges: a local path or an `s3://` URI; with
    `teacher.sampler: openai` the model's name at its server."""
    student: str = ""
    """Hugging Face folder of the smaller model, which is trained: a local path or an `s3://` URI."""
    config: Config = Config()
    """The settings of the stages."""
    num_shards: Annotated[int, Field(ge=1, le=10_000)] = 1
    """How many tasks share each `generate` and `judge`; a run may go on with another number."""
    num_evaluate_shards: Annotated[int, Field(ge=1, le=10_000)] = 1
    """How many tasks share the evaluation of each model. Each loads it: more than a few pay for long data."""
    ppo_rewards: Annotated[tuple[PpoReward, ...], Field(min_length=1)] = ("model", "mixed", "agreement")
    """One PPO run for each: `model`, `mixed`, `agreement` or `judge` (docs/rl.md). The policy is the better
    of `model` and `mixed` by validation agreement."""
    reward_variants: tuple[str, ...] = (
        "reward.source_weight=0",
        "reward.source_weight=0.25",
        "reward.source_weight=0.75",
        "reward.source_weight=1",
    )
    """`ablation`: a reward model and a PPO run for each: settings of these two, with commas between."""
    noise_variants: tuple[str, ...] = ("label.noise=0.1", "label.noise=0.2", "label.noise=0.4")
    """`ablation`: the same, from labels of which such a share is made wrong."""
    prepared_uri: str = ""
    """`distill_rewards`: a finished `prepare`, as `limbeck status` shows it."""
    label_uri: str = ""
    """`distill_rewards`: a finished `label` of the teacher's completions."""
    checkpoint: str = ""
    """`distill_rewards`: the warmed-up student, from `sft` or any checkpoint folder in the store."""
    models: tuple[str, ...] = ()
    """`evaluate`: checkpoint folders; the others are compared with the first."""
    gpus: Annotated[int, Field(ge=0)] = 1
    """GPUs of each task that uses some; 0 asks for none."""
    gpu_resource: Annotated[str, Field(pattern=GPU_RESOURCE)] = "nvidia.com/gpu"
    """What the cluster calls its GPUs."""
    resources: Resources = Resources()
    """CPU, memory and GPUs by stage, where the defaults do not fit."""
    train_jobs: TrainJobs = TrainJobs()
    """Kueue's queue and priority, and the runtime, of trainings on several nodes (docs/multi-node.md)."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels that the nodes of GPU tasks must have, such as the GPU's model."""
    node_affinity: NodeAffinity = Field(default_factory=NodeAffinity)
    """Kubernetes nodeAffinity of GPU tasks, as JSON."""
    tolerations: list[Toleration] = Field(default_factory=list)
    """Kubernetes tolerations of GPU tasks, as JSON."""
    s3_secret: str = "limbeck-s3"  # noqa: S105 - the name of a secret
    """Secret with the object store's address and key."""
    api_secret: str = "limbeck-api"  # noqa: S105 - the name of a secret
    """Secret with OPENAI_API_KEY, for `teacher.sampler: openai`; it need not exist where no key is wanted."""
    image_pull_secret: str = "limbeck-pull"  # noqa: S105 - the name of a secret
    """Secret for pulling images; it need not exist where the registry is open."""

    @field_validator("work_uri")
    @classmethod
    def _is_uri(cls, value: str) -> str:
        if not re.fullmatch(r"(s3|minio)://\w[\w.-]*(/\S*)?", value):
            raise ValueError("must be an object-store address such as s3://bucket/path")
        return value

    @field_validator("reward_variants", "noise_variants")
    @classmethod
    def _fit(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        sweep = str(info.field_name)
        # Broken settings are told by themselves; a variant is then tried on the defaults.
        given = info.data.get("config", Config()).model_dump(mode="json", exclude_unset=True)
        for variant in value:
            try:
                parse_config(given, variant)
                check_swept(variant, sweep)
            except ConfigError as error:
                raise ValueError(str(error)) from error
        if not value or len(set(value)) != len(value):
            raise ValueError("names a variant twice, or none")
        return value

    @field_validator("ppo_rewards")
    @classmethod
    def _can_choose(cls, value: tuple[PpoReward, ...]) -> tuple[PpoReward, ...]:
        if len(set(value)) != len(value):
            raise ValueError("names a reward twice")
        if not {"model", "mixed"} & set(value):
            raise ValueError("must hold `model` or `mixed`: the policy is the better of the two")
        return value


def load_run_file(path: Path) -> RunFile:
    """Read and check a run file.

    Raises:
        ConfigError: naming the file, the key, what was expected and what is there.
    """
    return parse(RunFile, read_parameters(path), str(path))


def arguments(run_file: RunFile, pipeline: Compiled) -> dict[str, Any]:
    """What a run file gives to a pipeline.

    Args:
        run_file: All that a person set.
        pipeline: The compiled pipeline, which declares what it takes.

    Returns:
        Values by parameter, plain JSON; what the run file leaves to its defaults is filled in.

    Raises:
        ConfigError: the first of `refusals`.
    """
    for refusal in refusals(run_file, pipeline):
        raise refusal
    return {name: value for name, value in _values(run_file).items() if name in pipeline.parameters}


def refusals(run_file: RunFile, pipeline: Compiled) -> Iterator[ConfigError]:
    """What a pipeline must have and is not there, and what it does not take and is."""
    declared, where = pipeline.parameters, f"pipeline {pipeline.spec['pipelineInfo']['name']}"
    values = _values(run_file)
    missing = [name for name in pipeline.required if values.get(name) in ("", [], None)]
    if missing:
        yield ConfigError(
            f"missing parameter `{missing[0]}`",
            where=where,
            expected=", ".join(missing),
            got="no value",
            remedy="Add it to the run file",
        )
    surplus = [name for name in values if name not in declared and _was_set(run_file, name)]
    if surplus:
        yield ConfigError(
            f"unknown parameter `{surplus[0]}`",
            where=where,
            expected=", ".join(declared),
            got=", ".join(surplus),
            remedy="Remove them, or choose another pipeline",
        )


def _values(run_file: RunFile) -> dict[str, Any]:
    """All parameters as plain JSON without nulls."""
    values = run_file.model_dump(mode="json", exclude_none=True)
    return values | {"config": plain(run_file.config)}


def _was_set(run_file: RunFile, name: str) -> bool:
    """Whether a value differs from its default."""
    return name in run_file.model_fields_set and getattr(run_file, name) != RunFile.model_fields[
        name
    ].get_default(call_default_factory=True)
