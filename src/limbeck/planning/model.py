"""What a plan holds: the JSON of `limbeck plan --json`, which `limbeck report --plan` reads again."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from limbeck.errors import DataError
from limbeck.planning.fit import Fits


class Part(BaseModel):
    """Base of all parts: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PlannedTask(Part):
    """One task of a run; its shards are counted together but for `seconds`."""

    task: str
    stage: str
    name: str
    """As the report calls what it makes."""
    step: int
    """Tasks of one step run side by side."""
    num_tasks: int
    """Shards."""
    gpus: int
    """Of one shard."""
    prompt_tokens: int
    """That engines compute; of a black box, that it is sent."""
    completion_tokens: int
    trained_tokens: int
    """That pass a training, over all epochs and models."""
    flops: float
    memory: dict[str, int]
    """Bytes on one GPU; empty where there is none, or its model is a black box."""
    memory_bytes: int
    """Their sum."""
    certain_bytes: int
    """What is allocated whatever the rows are."""
    room_bytes: int
    """What the task may take of the GPU."""
    sequences: int | None
    """Of `engine.max_model_len` tokens that an engine's KV cache holds."""
    fits: Fits | None
    smallest: str
    """The smallest change with which it fits; empty where it fits."""
    seconds: float | None
    """Of one shard; None where nothing is known."""
    gpu_hours: float
    bytes: int
    """Left in the object store."""
    objects: int
    cost: float | None
    """Of its GPUs."""
    api_cost: float | None
    """Of a black box, by the section `openai`."""


class PlanFinding(Part):
    """What stands against the run."""

    severity: Literal["error", "warning"]
    text: str


class Plan(Part):
    """The whole plan."""

    pipeline: str
    gpu: str
    gpu_memory_gib: float
    rates_source: str
    tasks: tuple[PlannedTask, ...]
    assumptions: tuple[str, ...]
    findings: tuple[PlanFinding, ...]
    hours: float
    """Of the whole run, if all tasks of a step have their GPUs at once and none waits."""
    gpu_hours: float
    bytes: int
    objects: int
    accepted: float
    """Completions of the teacher that SFT learns from."""
    accepted_per_gpu_hour: float | None
    """By the GPU-hours of the teacher's `generate` and of `judge`; None where these are none."""
    cost: float | None
    """Of all GPUs."""
    storage_cost: float | None
    """Of what is left in the object store, a month."""
    currency: str
    price_source: str
    api_cost: float | None
    api_price_source: str


def parse_plan(text: bytes, where: str) -> Plan:
    """Read a plan again.

    Raises:
        DataError: when it is none.
    """
    try:
        return Plan.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            "not a plan",
            where=where,
            expected="what `limbeck plan --json` of this version writes",
            got=f"{first['msg']} at {'.'.join(map(str, first['loc'])) or 'the top'}",
            remedy="Make it again",
        ) from error
