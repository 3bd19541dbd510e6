"""Settings of the task, and of the stages that make rows: from prompts to labels, and the evaluation."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from limbeck.section import Count, Positive, Probability, Section

TaskKind = Literal["pattern", "math", "choice", "text", "open"]
Preset = Literal["gsm8k", "gsm_plus", "mmlu_pro", "alpaca_eval"]
Name = Annotated[str, Field(min_length=1)]
ENDPOINT = r"^https?://[\w.-]+(:\d+)?(/[\w./-]*)?$"
"""Without a user and a password: those would be seen with the run."""
LabelRule = Literal["judged_majority", "majority", "judge", "gold"]


class TaskConfig(Section):
    """What is asked and how an answer is read. Shared by all stages."""

    prompt_template: str = "{prompt}"
    """The user message; `{prompt}` is replaced by the prompt."""
    system_prompt: str | None = None
    """What a system message says to teacher and student; the judge gets none. A chat template that takes
    no system message (Gemma 2) gets it in front of the user's."""
    strip_thinking: bool = False
    """Whether what models think (`<think>...</think>`) is taken out of completions before answers are read,
    judged and trained on. Rows keep what was sampled."""
    kind: TaskKind = "pattern"
    """How answers are found and compared: `pattern` by `answer_pattern`; `math` by boxes, `####`, "the answer
    is" and the last number, compared by algebra (math-verify); `choice` a letter; `text` a few words; `open`
    the whole completion, which is never compared: the judge alone says whether it is good."""
    answer_pattern: str = r"(?:####|answer is:?|=)\s*\$?(-?[\w.,/]*\w)"
    """Of the kind `pattern`: regular expression whose group 1 is the final answer; its last match counts."""
    case_sensitive: bool = False
    """Whether answers that differ in case alone are different answers."""
    compare_seconds: Positive = 2.0
    """Of the kind `math`: two formulas that take algebra longer than this to compare count as different."""
    shuffle_options: bool = True
    """Of the kind `choice`: ask a data set's `options` in an order drawn for each prompt, so that a model
    gains nothing by its liking for a letter; else in their own order."""

    @property
    def is_open(self) -> bool:
        """Whether answers are judged alone: no two are the same, so there are no votes and no agreement."""
        return self.kind == "open"

    @field_validator("prompt_template")
    @classmethod
    def _holds_prompt(cls, value: str) -> str:
        if "{prompt}" not in value:
            raise ValueError("must contain {prompt}")
        return value

    @field_validator("answer_pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            groups = re.compile(value).groups
        except re.error as error:
            raise ValueError(f"must be a regular expression: {error}") from error
        if groups < 1:
            raise ValueError("must have a group: the answer is group 1")
        return value


class FieldsConfig(Section):
    """What the columns of a data set are called."""

    prompt: Name = "prompt"
    """What is asked."""
    answer: Name = "answer"
    """The gold answer; the column need not be there. Of the kind `open` it is only shown, as a reference."""
    options: Name = "options"
    """The options of a question of the kind `choice`; the column need not be there."""


class PrepareConfig(Section):
    """Reading and splitting the data set."""

    preset: Preset | None = None
    """A published data set in its official columns and answers (docs/data.md); null reads `fields`."""
    heldout_preset: Preset | None = None
    """The same for held-out data that have another form; null reads them like the prompts."""
    fields: FieldsConfig = FieldsConfig()
    """Columns of your own data."""
    hub_endpoint: Annotated[str, Field(pattern=ENDPOINT)] | None = None
    """Address of the hub or a mirror, for `hf://`; null takes the variable HF_ENDPOINT, or the public one."""
    hub_offline: bool = False
    """Read `hf://` from the hub's local cache (HF_HOME) alone, without any request."""
    heldout_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Part of the prompts that is held out when no held-out data are given."""
    max_bad_fraction: Probability = 0.05
    """Share of broken rows above which the stage fails instead of setting them aside."""
    max_prompt_chars: Count = 20_000
    """Longer prompts are set aside."""
    near_duplicates: Annotated[float, Field(ge=0.5, le=1.0)] | None = 0.8
    """Jaccard similarity, 0.5 to 1, from which two prompts with the same numbers are near-duplicates: one of
    them trains, none if one is held out; null: all do. 0.8 as in Lee et al. 2022 (arXiv 2107.06499)."""
    decontaminate_ngram: Annotated[int, Field(ge=5, le=64)] | None = 13
    """Words in the runs of words that train and held-out prompts are compared by. A train prompt with 70% of
    a held-out one's runs, and its numbers, leaves; null: it stays. 13 as for GPT-3 (Brown et al. 2020)."""
    max_alike: Annotated[int, Field(ge=2)] = 10
    """What more prompts than this have in common is a template or an instruction, no copy, and does not
    count. 10 as for GPT-3."""

    @model_validator(mode="after")
    def _says_one_form(self) -> Self:
        if self.preset and self.fields != FieldsConfig():
            raise ValueError("takes `preset` or `fields`: a preset has its own columns")
        return self


class SamplingConfig(Section):
    """How one model answers every prompt."""

    samples_per_prompt: Count = 10
    """Completions of each prompt, spread evenly over the temperatures. The paper's revised version: 10."""
    temperatures: Annotated[tuple[Annotated[float, Field(ge=0.0, le=2.0)], ...], Field(min_length=1)] = (
        0.3,
        0.7,
        1.0,
    )
    """Sampling temperatures, recorded in every row."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Nucleus sampling: keep the most likely tokens of this total probability."""
    max_tokens: Count = 512
    """Longest completion, in tokens."""


class GenerateConfig(Section):
    """Answers of teacher and student."""

    teacher: SamplingConfig = SamplingConfig()
    """How the teacher answers."""
    student: SamplingConfig = SamplingConfig()
    """How the warmed-up student answers; the paper's revised version takes 30 samples."""
    rows_per_part: Count = 2000
    """Completions in one Parquet part. A killed stage loses at most so many finished ones, and of these only
    the last `commit_seconds`; judge and evaluate keep to both too."""
    commit_seconds: Positive = 30.0
    """Finished completions are stored at least this often, also where a part is not full yet. Where a GPU
    lasts half an hour, 30 s lose less than 1% of the tokens, 60 s would lose 1.5% (docs/simulation.md)."""
    max_bad_fraction: Probability = 0.05
    """Share of completions that may be set aside (their prompt is too long for the context, or they killed
    the engine) before the stage fails."""


class JudgeConfig(Section):
    """The teacher judges its own answers."""

    template: str = (
        "Question:\n{prompt}\n\nProposed answer:\n{completion}\n\n"
        "Is the proposed answer correct? Reply with one word, {first} or {second}."
    )
    """The judge prompt. `{prompt}` and `{completion}` are replaced, and `{first}` and `{second}` by the two
    words: `yes` first, and in every second verdict `no` first."""
    open_template: str = (
        "Question:\n{prompt}\n\nProposed answer:\n{completion}\n\n"
        "Is the proposed answer good: helpful, relevant, accurate and detailed enough? "
        "Reply with one word, {first} or {second}."
    )
    """The same for `task.kind: open`, where no answer is the correct one. Its criteria are those that the
    judge of MT-Bench grades single answers by (Zheng et al. 2023, arXiv 2306.05685); the wording is ours."""
    yes: str = "yes"
    """The word for correct, or good; P(correct) = P(yes) / (P(yes) + P(no)) of the first token."""
    no: str = "no"
    """The word for wrong, or not good."""
    votes: Count = 1
    """Verdicts on each completion, 1 or an even number: P(correct) is their mean. From 2 on, half of them
    name the words in the other order, which evens out a judge's liking for what stands first."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    """Of the verdicts. It matters for a teacher that gives text alone: there each verdict is 0 or 1, and
    more than one in each order needs some. A probability that is read from the first token ignores it."""

    @field_validator("template", "open_template")
    @classmethod
    def _holds_both(cls, value: str) -> str:
        if "{prompt}" not in value or "{completion}" not in value:
            raise ValueError("must contain {prompt} and {completion}")
        return value

    @model_validator(mode="after")
    def _verdicts_differ(self) -> Self:
        if self.votes > 1 and self.votes % 2:
            raise ValueError("votes must be 1 or even: half of the verdicts name the words in each order")
        for name in ("template", "open_template") if self.votes > 1 else ():
            if not all(word in getattr(self, name) for word in ("{first}", "{second}")):
                raise ValueError(
                    f"{name} must contain {{first}} and {{second}}: votes name the words in both orders"
                )
        if self.votes > 2 and self.temperature == 0:
            raise ValueError("temperature must be above 0 for more than 2 votes: else they repeat themselves")
        return self


class LabelConfig(Section):
    """From judged answers to one pseudo label a prompt."""

    rule: LabelRule = "judged_majority"
    """Vote among completions judged correct, among all, or take the best judged one: of `task.kind: open`
    the only rule. `gold` takes the known answer: an upper bound to compare with, not the method; the pipeline
    `distill_gold` can run it, and `ablation` has a row of it."""
    min_p_correct: Probability = 0.5
    """A completion votes (judged_majority), or counts as good (judge), from this P(correct)."""
    calibrate: Literal["none", "majority"] = "none"
    """`majority`: before it is compared with `min_p_correct`, P(correct) is turned into the chance to agree
    with the vote of the prompt's other completions, fitted on other prompts. No gold answer is used."""
    min_vote_share: Probability = 0.3
    """A winner with a smaller share of the votes leaves the prompt unlabelled."""
    noise: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of the pseudo labels that the component `noise` of an ablation makes wrong; nothing else reads
    it."""
    validation_prompts: Count = 200
    """Labelled prompts kept out of all training; the reward model is measured, and the policy's
    checkpoint chosen, on them. A student that had been warmed up on them would agree from the start."""

    @property
    def uses_judgements(self) -> bool:
        """Whether the rule looks at P(correct)."""
        return self.rule in ("judged_majority", "judge")

    @model_validator(mode="after")
    def _calibrates_what_is_used(self) -> Self:
        if self.calibrate != "none" and not self.uses_judgements:
            raise ValueError(f"calibrate must be none: the rule {self.rule} does not look at judgements")
        return self


class EvaluateConfig(Section):
    """Held-out accuracy."""

    samples_per_prompt: Count = 4
    """Sampled completions of each prompt; greedy takes one."""
    temperature: Positive = 1.0
    """Temperature of the sampled decoding."""
    max_tokens: Count = 512
    """Longest completion, in tokens."""
