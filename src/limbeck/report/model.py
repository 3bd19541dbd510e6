"""What report.json holds. Written by the stage `report`; read by people's tools and by `export`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from limbeck.config import Config
from limbeck.data_statistics import DataStatistics
from limbeck.intervals import Interval
from limbeck.label_quality.model import LabelQuality
from limbeck.metrics import Figure, ReliabilityBin

RowDecoding = Literal["sampled", "greedy", "majority"]
"""Sampled: pass@1, the mean over k samples. Majority: the answer that most of these k samples give."""


class Part(BaseModel):
    """Base of all parts of the report: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class AccuracyRow(Part):
    """Held-out accuracy of one model in one decoding."""

    name: str
    """`teacher`, `student`, `sft_all`, `sft_selected`, `ppo_model`, ...; `policy` is the picked one again.
    Where models are only evaluated, the names that the user gave."""
    decoding: RowDecoding
    n: int
    """Held-out prompts with a gold answer; each counts with the mean over its answers."""
    accuracy: Figure
    """None without gold answers."""
    interval: Interval | None
    """95%, bootstrap over prompts."""


class Comparison(Part):
    """Accuracy of `a` minus accuracy of `b` on the prompts that both answered."""

    a: str
    b: str
    decoding: RowDecoding
    n: int
    difference: Figure
    interval: Interval | None
    """95%, paired bootstrap over prompts."""


class Fidelity(Part):
    """How far one model gives the answers of the teacher, right or wrong."""

    name: str
    decoding: RowDecoding
    """`greedy` or `majority`, of both."""
    n: int
    """Prompts that both have; where one gives no answer they do not agree."""
    agreement: Figure
    """Share of them with the teacher's answer."""
    interval: Interval | None
    """95%, bootstrap over prompts, as below."""
    num_teacher_wrong: int
    agreement_teacher_wrong: Figure
    """Share with the teacher's answer among the prompts whose answer by the teacher is wrong."""
    interval_teacher_wrong: Interval | None
    error_consistency: Figure
    """Cohen's kappa of right and wrong: 0 is what the two accuracies alone would give, 1 the same errors."""


class AnswerLength(Part):
    """Tokens and cost of an answer of one model in one decoding."""

    name: str
    decoding: RowDecoding
    """An answer by majority takes the tokens of all its samples."""
    n: int
    """Held-out prompts that were asked; each counts with the mean over its answers."""
    mean_tokens: Figure
    """Completion tokens."""
    interval: Interval | None
    """95%, bootstrap over prompts."""
    median_tokens: Figure
    """Over prompts."""
    cut: Figure
    """Share of the answers cut off at `evaluate.max_tokens`; of majorities, that have such a sample."""
    cost: Figure
    """Mean tokens times `report.price_per_million_tokens` of the row; None without a price."""


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
    """The same on prompts whose label had a vote share in this range, of both sources."""

    low: float
    high: float
    auc: Figure = None
    pair_accuracy: Figure = None
    ece: Figure = None
    score_length_correlation: Figure = None


class RewardReport(Part):
    """The reward model, measured against pseudo labels on held-out prompts of the train side."""

    by_source: dict[str, RewardFigures]
    """`teacher` and `student`."""
    by_vote_share: tuple[RewardBin, ...]
    reliability: dict[str, tuple[ReliabilityBin, ...]] = Field(default_factory=dict)
    """By source: predicted P(good) against the share that is good; empty for a model of another tool."""


class PpoStep(BaseModel):
    """One round: a line of the trainer's history, of which other metrics are left out."""

    model_config = ConfigDict(frozen=True, validate_by_name=True, validate_by_alias=True)

    update: int
    reward: Figure = Field(default=None, validation_alias="ppo/score")
    """Mean score of the round's rollouts, before the KL penalty."""
    proxy: Figure = Field(default=None, validation_alias="ppo/proxy")
    """Mean score that the reward model gives, whatever earns the reward."""
    kl: Figure = Field(default=None, validation_alias="ppo/kl")
    """Mean KL of a completion to the warmed-up student, in nats."""
    kl_k3: Figure = Field(default=None, validation_alias="ppo/kl_k3")
    """The same by an estimator that is never below 0; `grpo` measures this one alone."""
    length: Figure = Field(default=None, validation_alias="ppo/length")
    """Mean tokens of a rollout."""
    entropy: Figure = Field(default=None, validation_alias="ppo/entropy")
    """Mean entropy of the policy, in nats a token."""
    agreement: Figure = Field(default=None, validation_alias="ppo/batch_agreement")
    """Share of the round's rollouts that agree with the pseudo label, of prompts that have one."""
    validation_agreement: Figure = Field(default=None, validation_alias="ppo/validation_agreement")
    """The same on the validation prompts; measured at some rounds only, as are the next two."""
    validation_proxy: Figure = Field(default=None, validation_alias="ppo/validation_proxy")
    """Mean score of the reward model on the validation prompts, whatever earns the reward."""
    validation_length: Figure = Field(default=None, validation_alias="ppo/validation_length")
    """Mean tokens of their completions."""

    @property
    def shown_kl(self) -> float | None:
        """The estimate that there is."""
        return self.kl_k3 if self.kl is None else self.kl


class PpoRun(Part):
    """One PPO run with one kind of reward."""

    name: str
    picked: bool
    """Whether this run is the policy."""
    validation_agreement: Figure
    """Of its kept checkpoint; this chose it."""
    stopped_by_monitor: bool
    """Whether the run was ended because the reward rose while agreement fell."""
    proxy_length_correlation: Figure = None
    """Of the reward model's mean score with mean length, over the measurements on the validation prompts."""
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
    gpu_hours: float | None = None
    """GPUs that each part could see, times its hours; None of stages without, and of manifests of before."""
    prompt_tokens: int | None = None
    """Of all that an engine was asked; None where nobody counted them, as are the next."""
    completion_tokens: int | None = None


class Accepted(Part):
    """What the GPUs of the teacher have given."""

    completions: int
    """The teacher's, that SFT on selected ones has learnt from."""
    gpu_hours: float
    """Of the teacher's `generate` and of `judge`; of each attempt that finished, not of those before it."""
    per_gpu_hour: float


class PlannedStage(Part):
    """What a task was planned to take, all shards together; None is nothing, or not known."""

    task: str
    stage: str
    name: str
    """As in `StageRow`."""
    wall_seconds: float | None
    gpu_hours: float | None
    prompt_tokens: int | None
    completion_tokens: int | None


class PlannedRun(Part):
    """The run by the formulas of `limbeck plan` (docs/plan.md), with the number of prompts that it had."""

    gpu: str
    """The kind of GPU that it is planned for: `report.gpu`."""
    missing: str = ""
    """Why there is no plan; the other fields are empty then."""
    rates_source: str = ""
    """Where the speed of this GPU comes from."""
    assumptions: tuple[str, ...] = ()
    stages: tuple[PlannedStage, ...] = ()
    gpu_hours: float | None = None
    accepted: int | None = None
    """Completions that SFT was planned to learn from."""
    accepted_per_gpu_hour: float | None = None


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
    fidelity: tuple[Fidelity, ...]
    """Empty where no teacher was evaluated."""
    lengths: tuple[AnswerLength, ...]
    labels: LabelQuality | None
    """None where no labels were made or given, as is the next where there was no reward model."""
    reward: RewardReport | None
    ppo: dict[str, PpoRun]
    """By kind of reward: `model`, `mixed`, `agreement`, `judge`; empty without PPO."""
    data: tuple[DataStatistics, ...]
    """Train and held-out side, as far as `prepare` made them."""
    stages: tuple[StageRow, ...]
    accepted: Accepted | None = None
    """None without GPUs, and where a manifest does not tell of them."""
    plan: PlannedRun | None = None
    """None where no `preflight` of this version was run."""
    examples: tuple[Example, ...]
    provenance: tuple[Provenance, ...]
    settings: Config
