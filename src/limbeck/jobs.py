"""What the processes of a training are asked to do, what they give back, and the files in between.

A node's own process writes the job and reads the rest; the training processes (ranks) know no store.

{folder}/job.json             what is asked
{folder}/rows.jsonl           what is learnt from
{folder}/pids/{rank}          of the processes that take SIGTERM
{folder}/begun                the number of updates that were done when the training began
{folder}/place                how far it has come, for people
{folder}/outbox/{step}/       the newest whole training state, until the node takes it
{folder}/errors/{rank}.json   what a rank failed of, if it could say it
{folder}/failed.json          which rank of this node failed first
{folder}/outcome.json         what came of it
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from limbeck.calibration import Line
from limbeck.config import Config, PpoReward
from limbeck.records import PpoPrompt

Floats = NDArray[np.float64]
JOB, ROWS, PIDS, BEGUN, PLACE = "job.json", "rows.jsonl", "pids", "begun", "place"
OUTBOX, ERRORS, FAILED, OUTCOME = "outbox", "errors", "failed.json", "outcome.json"


@dataclass(frozen=True)
class SftRun:
    """What a training gave: the checkpoint's folder and `sft/loss` at some steps."""

    folder: Path
    history: list[dict[str, float]]


@dataclass(frozen=True)
class RewardRun:
    """What a training gave: the best checkpoint, its scores of the validation rows, and its course."""

    folder: Path
    validation_scores: Floats
    """Probabilities, sigmoid of the scores, in the order of the validation rows given."""
    history: list[dict[str, float]]


@dataclass
class Course:
    """How far a run of reinforcement learning has come: what a resumed one must know besides the weights."""

    update: int = 0
    kl_coef: float = 0.0
    best_agreement: float = -1.0
    best_update: int = 0
    start_agreement: float = 0.0
    stopped: bool = False
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class PpoRun:
    """What a run gave: the checkpoint that was chosen, and its course."""

    folder: Path
    course: Course
    num_slow: int = 0
    """Comparisons of answers that took too long."""


class _File(BaseModel):
    """Written by one process and read by another of the same node."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Job(_File):
    """One training. Written by a node's process (`limbeck.torchrun`), read by its ranks."""

    training: Literal["sft", "reward", "ppo"]
    name: str
    """What progress lines call it."""
    config: Config
    base: Path
    """The checkpoint that it starts from."""
    folder: Path
    """All its files."""
    resume_from: Path | None
    """The training state that it goes on from."""
    checkpoint_seconds: float
    """Time between two states."""


class PpoJob(Job):
    """Reinforcement learning of `base`, the warmed-up student."""

    reward_folder: Path
    """The reward model's checkpoint."""
    prompts: tuple[PpoPrompt, ...]
    """What rollouts answer."""
    validation: tuple[PpoPrompt, ...]
    reward: PpoReward
    teacher: str
    """Of the reward `judge`: the teacher's folder, or its name at its server."""
    questions: dict[str, str]
    """What the judge is shown, by prompt."""
    lines: tuple[Line, ...]
    """How its verdicts are calibrated."""


class Failed(_File):
    """The rank that failed first on a node. Written by `limbeck.trainer.agent`."""

    rank: int
    exit_code: int
    """Negative: killed by that signal."""
    log: str
    """Its log of errors."""


class Error(_File):
    """What a rank failed of. Written by `limbeck.trainer.worker`."""

    exit_code: int
    message: str


class Outcome(_File):
    """What came of a training. Written by the first rank of a node."""

    stopped: bool = False
    """By SIGTERM; the state is in the outbox."""
    folder: Path | None = None
    """The checkpoint."""
    history: list[dict[str, float]] = []
    scores: list[float] = []
    """Of the validation rows, of a reward model."""
    course: Course | None = None
    """Of reinforcement learning, as is the next."""
    num_slow: int = 0
