"""What each stage asks of its node: defaults here, the parameter `resources` over them."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from limbeck.config import GPU_STAGES, DeepSpeedConfig
from limbeck.errors import ConfigError
from limbeck.section import Section, parse

CPU_STAGES = ("prepare", "label", "report")


def _text(value: object) -> object:
    """YAML and JSON bring `cpu: 8` as a number, Kubeflow even as 8.0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return str(int(value)) if float(value).is_integer() else str(value)


Cpu = Annotated[str, BeforeValidator(_text), Field(pattern=r"^(\d+(\.\d+)?|\d+m)$")]
# Plain numbers are bytes: less than a megabyte is a unit forgotten.
Memory = Annotated[str, BeforeValidator(_text), Field(pattern=r"^(\d{7,}|\d+(k|[MGTPE]|[KMGTPE]i))$")]


class StageResources(Section):
    """One stage's wishes; what is not said keeps the default."""

    cpu: Cpu | None = None
    """CPUs, a Kubernetes quantity such as 8 or 500m; request and limit."""
    memory: Memory | None = None
    """Memory, a Kubernetes quantity such as 64Gi; request and limit, /dev/shm included."""
    gpus: Annotated[int, Field(ge=0, le=64)] | None = None
    """GPUs of one task; the parameter `gpus` is the default."""


class Resources(Section):
    """Wishes by stage."""

    prepare: StageResources = StageResources()
    """Reads the data set; measured in docs/scale.md."""
    generate: StageResources = StageResources()
    """vLLM."""
    judge: StageResources = StageResources()
    """vLLM with the teacher."""
    label: StageResources = StageResources()
    """Votes; measured in docs/scale.md."""
    sft: StageResources = StageResources()
    """DeepSpeed: the student with gradients and optimizer."""
    reward: StageResources = StageResources()
    """DeepSpeed: the reward model with gradients and optimizer."""
    ppo: StageResources = StageResources()
    """DeepSpeed and vLLM: policy, critic, reference, reward model and rollouts."""
    evaluate: StageResources = StageResources()
    """vLLM."""
    report: StageResources = StageResources()
    """Bootstrap and page; measured in docs/scale.md."""


class StageRequest(Section):
    """What a task of a stage asks for, all said."""

    cpu: str
    """CPUs, a Kubernetes quantity."""
    memory: str
    """Memory, a Kubernetes quantity."""
    gpus: int
    """GPUs of one task."""


DEFAULTS = {stage: StageRequest(cpu="1", memory="2Gi", gpus=0) for stage in CPU_STAGES} | {
    stage: StageRequest(cpu="8", memory="128Gi" if stage == "ppo" else "64Gi", gpus=1) for stage in GPU_STAGES
}

LAUNCHER = StageRequest(cpu="500m", memory="1Gi", gpus=0)
"""Of a task that only waits for a TrainJob."""
TEACHER_STAGES = ("generate", "judge", "evaluate")
"""In which a teacher answers."""
BLACK_BOX = StageRequest(cpu="2", memory="8Gi", gpus=0)
"""Of their tasks where a server of others runs the teacher."""


def parse_resources(values: dict[str, Any]) -> Resources:
    """Check the parameter `resources` (JSON from Kubeflow; its ints arrive as floats)."""
    return parse(Resources, values, "resources")


def processes_of_node(deepspeed: DeepSpeedConfig, request: StageRequest) -> int:
    """How many processes train on each node of a stage: as the settings say, else one a GPU, or one."""
    return deepspeed.processes or max(1, request.gpus)


def requests(resources: Resources, gpus: int, *, black_box: bool = False) -> dict[str, StageRequest]:
    """What the tasks of every stage ask for.

    Those of `generate` and `evaluate` in which the teacher answers are called `generate_teacher` and
    `evaluate_teacher`.

    Args:
        resources: The parameter `resources`.
        gpus: The parameter `gpus`: what a GPU stage gets that `resources` does not name.
        black_box: Whether a server of others runs the teacher, which then needs no GPU here.

    Raises:
        ConfigError: when a stage without a GPU engine is given GPUs.
    """
    with_gpu = [stage for stage in GPU_STAGES if not (black_box and stage == "judge")]
    result = {}
    for stage, default in DEFAULTS.items():
        wish: StageResources = getattr(resources, stage)
        if stage not in with_gpu and wish.gpus:
            raise ConfigError(
                "this stage uses no GPU",
                where=f"resources.{stage}.gpus",
                expected="0",
                got=str(wish.gpus),
                remedy=f"Remove it; GPUs are for {', '.join(with_gpu)}",
            )
        result[stage] = StageRequest(
            cpu=wish.cpu or default.cpu,
            memory=wish.memory or default.memory,
            gpus=0 if stage in CPU_STAGES else gpus if wish.gpus is None else wish.gpus,
        )
        if stage in TEACHER_STAGES:
            of_teacher = result[stage]
            if black_box:
                of_teacher = StageRequest(
                    cpu=wish.cpu or BLACK_BOX.cpu, memory=wish.memory or BLACK_BOX.memory, gpus=0
                )
            result[stage if stage == "judge" else f"{stage}_teacher"] = of_teacher
    return result
