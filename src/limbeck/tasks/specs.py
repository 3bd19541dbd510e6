"""What a training is given, complete in one text: another pod can do it, and its hash stands for it."""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from limbeck.errors import DataError
from limbeck.manifest import Manifest


class Spec(BaseModel):
    """What all trainings are given. Written by the launcher; read by the nodes of its TrainJob."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    work_uri: str
    config: dict[str, Any]
    """Settings of all stages, as Kubeflow hands them over."""
    variant: str = ""

    @property
    def digest(self) -> str:
        """The sha256 of it all: that of the same inputs and settings, in whatever order they come."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class SftSpec(Spec):
    """What `sft` is given."""

    stage: Literal["sft"] = "sft"
    labelled: Manifest
    model: str
    selection: str
    role: str


class RewardSpec(Spec):
    """What `reward` is given."""

    stage: Literal["reward"] = "reward"
    teacher_labelled: Manifest
    student_labelled: Manifest
    checkpoint: Manifest
    teacher: str


class PpoSpec(Spec):
    """What `ppo` is given."""

    stage: Literal["ppo"] = "ppo"
    prompts: Manifest
    labels: Manifest
    checkpoint: Manifest
    reward_model: Manifest
    reward: str
    teacher: str


AnySpec = SftSpec | RewardSpec | PpoSpec
_ADAPTER: TypeAdapter[AnySpec] = TypeAdapter(Annotated[AnySpec, Field(discriminator="stage")])


def parse_spec(text: bytes, where: str) -> AnySpec:
    """Read what a launcher wrote.

    Raises:
        DataError: when it is not that.
    """
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            "not what a training is given",
            where=where,
            expected="what a launcher of this version wrote",
            got=f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}",
            remedy="Run the training's task again, with one image for launcher and nodes",
        ) from error
