"""The rows that travel between stages; each says who writes it and who reads it.

Rows come in as bytes from an object store, so they are frozen and refuse unknown fields.
Ids are hashes of what they stand for, so a re-run gives the same names.
"""

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

DATA_SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")
"""Of the files of prompts that users bring; .json holds an array, or lines as .jsonl does."""
Source = Literal["teacher", "student"]
Decoding = Literal["greedy", "sampled"]
NOT_ASKED = "not asked"
"""The finish reason of a held-out answer that no model gave."""


def row_id(*parts: str | int | float) -> str:
    """Name a row by a hash of what it stands for: 16 hex digits of sha256."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:16]


class Row(BaseModel):
    """Base of all rows: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Prompt(Row):
    """One question. Written by `prepare`; read by every stage that asks or trains."""

    prompt_id: str
    prompt: str


class GoldAnswer(Row):
    """The known answer of a prompt. Written by `prepare`; read by `evaluate` and `report`.

    `label` reads it for the upper bound alone.
    """

    prompt_id: str
    answer: str


class Completion(Row):
    """One answer of a model. Written by `generate`; read by `judge`, `label` and `report`."""

    completion_id: str
    prompt_id: str
    source: Source
    text: str
    answer: str | None
    """The final answer found in the text, or None when there is none."""
    temperature: float
    sample_index: int
    """Which sample of this prompt, counted over all temperatures."""
    seed: int
    logprob: float | None
    """Cumulative log-probability of the sampled tokens at temperature 1, in nats; None where a server tells
    none."""
    num_prompt_tokens: int = 0
    """0 where nobody counted them."""
    num_tokens: int
    finish_reason: str
    """`stop` when the model ended by itself, `length` when it was cut off, `content_filter` when its server
    cut it."""


class Judgement(Row):
    """What the teacher thinks of a completion: its own, and of an open task the student's too.

    Written by `judge`; read by `label` and `report`.
    """

    completion_id: str
    prompt_id: str
    p_correct: float = Field(ge=0.0, le=1.0)
    """P(correct): the mean over the verdicts; 0 where the completion could not be judged."""
    p_yes_first: float | None = None
    """The mean over the verdicts whose question names the word for correct first; None without any."""
    p_no_first: float | None = None
    """The same where the word for wrong is named first: the difference is the judge's bias by position."""
    num_prompt_tokens: int = 0
    """Tokens of the questions of all verdicts; 0 when none was asked, or nobody counted them."""
    num_tokens: int = 0
    """Tokens of all verdicts, likewise."""


class PseudoLabel(Row):
    """The answer taken for right, without gold. Written by `label`; read by `label`, `ppo` and `report`."""

    prompt_id: str
    answer: str | None
    """None when the prompt stays unlabelled."""
    vote_share: float
    """Share of the votes that the winner got, 0 to 1; of an open task the share of the completions that are
    good, of which `answer` is the best."""
    num_votes: int
    reason: str
    """`labelled`, or why not: `no votes`, `tie`, `low vote share`; of an open task `none judged good`. `gold
    answer` is the known answer, of the rule `gold`: an upper bound, no pseudo label; `no gold answer` where
    it has none. `noise` is a label that an ablation made wrong."""
    validation: bool
    """Kept out of all training: the reward model is measured and the policy chosen on these prompts."""


class LabelledCompletion(Row):
    """A completion with its pseudo-reward. Written by `label`; read by `sft` and `reward`."""

    completion_id: str
    prompt_id: str
    prompt: str
    source: Source
    text: str
    pseudo_reward: float
    """1 if the completion's answer equals the pseudo label, or is judged good (open task), else 0."""
    vote_share: float
    selected: bool
    """Whether it is good enough for `sft` on selected completions."""
    validation: bool
    """Whether its prompt is kept out of training."""


class PpoPrompt(Row):
    """A prompt to roll out, in memory alone. Made by the stage `ppo`; read by its trainer."""

    prompt_id: str
    message: str
    """The user message the policy is asked."""
    label: str | None
    """The pseudo label, or None."""


class RejectedRow(Row):
    """A row set aside, with the reason. Written by any stage; counted in its manifest."""

    where: str
    reason: str
    row: str
    """The row as text, cut to 500 characters."""


class EvalResult(Row):
    """One held-out answer of one model. Written by `evaluate`; read by `report`."""

    prompt_id: str
    name: str
    """The row of the report: `teacher`, `student`, `sft_all`, `sft_selected`, `ppo_model`, ..."""
    decoding: Decoding
    sample_index: int
    text: str
    answer: str | None
    correct: bool | None
    """None when the prompt has no gold answer."""
    num_prompt_tokens: int = 0
    """0 when the model was not asked, or nobody counted them."""
    num_tokens: int
    """Sampled tokens, likewise."""
    num_judge_prompt_tokens: int = 0
    """Of an answer to an open question: tokens of the questions for a verdict on it, by all votes."""
    num_judge_tokens: int = 0
    """Tokens of these verdicts."""
    finish_reason: str
    """`stop`, `length` when it was cut off, `content_filter` when its server cut it, `not asked` where the
    prompt is too long, kills the engine or is refused by a server."""
