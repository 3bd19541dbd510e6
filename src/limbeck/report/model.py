"""What report.json holds. Written by the stage `report`; read by people's tools and by `export`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from limbeck.config import Config
from limbeck.intervals import Interval
from limbeck.label_quality import LabelQuality
from limbeck.metrics import Figure
from limbeck.records import Decoding


class Part(BaseModel):
    """Base of all parts of the report: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class AccuracyRow(Part):
    """Held-out accuracy of one model in one decoding."""

    name: str
    """`teacher`, `student`, `sft_all`, `sft_selected`, `ppo_model`, ...; `policy` is the picked one again.
    Where models are only evaluated, the names that the user gave."""
    decoding: Decoding
    n: int
    """Held-out prompts with a gold answer; each counts with the mean over its samples."""
    accuracy: Figure
    """None without gold answers."""
    interval: Interval | None
    """95%, bootstrap over prompts."""


class Comparison(Part):
    """Accuracy of `a` minus accuracy of `b` on the prompts that both answered."""

    a: str
    b: str
    decoding: Decoding
    n: int
    difference: Figure
    interval: Interval | None
    """95%, paired bootstrap over prompts."""


class Decision(Part):
    """Whether what was trained should take the place of what is in use."""

    promote: bool
    outcome: Literal["promote", "do not promote", "not decided"]
    headline: str
    """Did the student pass its teacher, or what else came out? One short sentence."""
    reason: str
    """The figures and intervals behind it."""
    policy: str | None
    """The checkpoint's own name. After PPO, `ppo_model` or `ppo_mixed`: its row is called `policy`. After
    SFT alone, `sft_selected`. None when nothing was trained."""
    checkpoint_uri: str | None
    """The folder of its weights."""


class RewardFigures(Part):
    """How the reward model does on the completions of one source, on prompts kept out of its training."""

    auc: Figure = None
    pair_accuracy: Figure = None
    ece: Figure = None
    score_length_correlation: Figure = None


class RewardBin(Part):
    """AUC of the reward model on prompts whose label had a vote share in this range."""

    low: float
    high: float
    auc: Figure


class RewardReport(Part):
    """The reward model, measured against pseudo labels on held-out prompts of the train side."""

    by_source: dict[str, RewardFigures]
    """`teacher` and `student`."""
    by_vote_share: tuple[RewardBin, ...]


class PpoStep(BaseModel):
    """One round of PPO: a line of the trainer's history, of which other metrics are left out."""

    model_config = ConfigDict(frozen=True, validate_by_name=True, validate_by_alias=True)

    update: int
    reward: Figure = Field(default=None, validation_alias="ppo/score")
    """Mean score of the round's rollouts, before the KL penalty."""
    proxy: Figure = Field(default=None, validation_alias="ppo/proxy")
    """Mean score that the reward model gives, whatever earns the reward."""
    kl: Figure = Field(default=None, validation_alias="ppo/kl")
    """Mean KL of a completion to the warmed-up student, in nats."""
    length: Figure = Field(default=None, validation_alias="ppo/length")
    """Mean tokens of a rollout."""
    entropy: Figure = Field(default=None, validation_alias="ppo/entropy")
    """Mean entropy of the policy, in nats a token."""
    agreement: Figure = Field(default=None, validation_alias="ppo/batch_agreement")
    """Share of the round's rollouts that agree with the pseudo label, of prompts that have one."""
    validation_agreement: Figure = Field(default=None, validation_alias="ppo/validation_agreement")
    """The same on the validation prompts; measured at some rounds only."""


class PpoRun(Part):
    """One PPO run with one kind of reward."""

    name: str
    picked: bool
    """Whether this run is the policy."""
    validation_agreement: Figure
    """Of its kept checkpoint; this chose it."""
    stopped_by_monitor: bool
    """Whether the run was ended because the reward rose while agreement fell."""
    steps: tuple[PpoStep, ...]


class StageRow(Part):
    """What a stage did; parts of one stage under one name (shards) are added up."""

    stage: str
    name: str
    num_parts: int
    wall_seconds: float
    rows_in: int
    rows_kept: int
    rejected: dict[str, int]
    cost: float | None = None
    """Of a black-box teacher's tokens, in the currency of `openai.price_source`; None where none is known."""


class ExampleAnswer(Part):
    """What one model answered."""

    name: str
    text: str
    answer: str | None
    correct: bool | None


class Example(Part):
    """One held-out prompt with sampled answers."""

    prompt: str
    gold: str | None
    answers: tuple[ExampleAnswer, ...]


class Provenance(Part):
    """Where an input of this report came from."""

    stage: str
    name: str
    uri: str
    content_hash: str
    config_hash: str
    code_version: str


class RunReport(Part):
    """The whole report."""

    decision: Decision
    rows: tuple[AccuracyRow, ...]
    comparisons: tuple[Comparison, ...]
    labels: LabelQuality | None
    """None where no labels were made or given, as is the next where there was no reward model."""
    reward: RewardReport | None
    ppo: dict[str, PpoRun]
    """By kind of reward: `model`, `mixed`, `agreement`; empty without PPO."""
    stages: tuple[StageRow, ...]
    examples: tuple[Example, ...]
    provenance: tuple[Provenance, ...]
    settings: Config
