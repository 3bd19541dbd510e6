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

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from limbeck.config import Config

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


class _File(BaseModel):
    """Written by one process and read by another of the same node."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Job(_File):
    """One training. Written by a node's process (`limbeck.torchrun`), read by its ranks."""

    training: Literal["sft", "reward"]
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
