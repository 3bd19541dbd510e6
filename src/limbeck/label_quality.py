"""How good pseudo labels and judgements are, against gold: for analysis, never for training.

Everything here is a plain count. Where gold is missing, coverage stays and precision is null.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from pydantic import BaseModel, ConfigDict

from limbeck.config import LabelConfig
from limbeck.labels import pseudo_label
from limbeck.metrics import Figure, auc
from limbeck.records import Completion, Judgement, PseudoLabel

VOTE_SHARE_EDGES = (0.0, 0.25, 0.5, 0.75, 1.0)


class _Quality(BaseModel):
    """Base of the parts of the label report. Written by `report`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Vote(_Quality):
    """What one rule gives when it sees the completions of one temperature only, or all of them."""

    rule: str
    temperature: float | None
    """None: all temperatures together."""
    coverage: Figure
    """Share of the prompts that get a label."""
    precision: Figure
    """Share of the labels that equal the gold answer."""


class Answers(_Quality):
    """How often single completions are right."""

    temperature: float | None
    num_completions: int
    accuracy: Figure
    """Share of the completions whose answer equals the gold answer."""


class VoteShareBin(_Quality):
    """Labels by the share of the votes that the winner got: above `low`, up to `high`."""

    low: float
    high: float
    num_labels: int
    precision: Figure


class Confusion(_Quality):
    """Judgements against gold: judged correct from `min_p_correct` on."""

    temperature: float | None
    tp: int
    fp: int
    tn: int
    fn: int
    auc: Figure
    """Of P(correct), which needs no threshold."""


class LabelQuality(_Quality):
    """The whole label report."""

    rule: str
    """The rule that made the run's labels."""
    num_prompts: int
    coverage: Figure
    precision: Figure
    unlabelled: dict[str, int]
    """How many prompts have no label, by reason."""
    by_vote_share: tuple[VoteShareBin, ...]
    votes: tuple[Vote, ...]
    """Plain and judged votes, over all temperatures and by temperature."""
    teacher: tuple[Answers, ...]
    """Teacher completions, over all temperatures and by temperature."""
    student: tuple[Answers, ...]
    """The same of the warmed-up student."""
    min_p_correct: float
    judge: tuple[Confusion, ...]
    """Over all temperatures and by temperature; empty without gold or judgements."""


def label_quality(
    labels: Sequence[PseudoLabel],
    completions: Sequence[Completion],
    student_completions: Sequence[Completion],
    judgements: Sequence[Judgement],
    gold: Mapping[str, str],
    config: LabelConfig,
) -> LabelQuality:
    """Compare labels, completions and judgements with gold.

    Args:
        labels: The run's pseudo labels, one for each prompt.
        completions: Teacher completions.
        student_completions: Completions of the warmed-up student.
        judgements: Of the teacher completions; one without a judgement counts as not judged correct.
        gold: Prompt id -> gold answer in its normal form; may be empty.
        config: Rule and thresholds of the run.
    """
    p_correct = {row.completion_id: row.p_correct for row in judgements}
    temperatures = sorted({row.temperature for row in completions})
    prompt_ids = [label.prompt_id for label in labels]
    rules = dict.fromkeys(("majority", "judged_majority", config.rule) if judgements else ("majority",))
    reasons: dict[str, int] = defaultdict(int)
    for label in labels:
        if label.answer is None:
            reasons[label.reason] += 1
    coverage, precision = _coverage_and_precision(labels, gold)
    return LabelQuality(
        rule=config.rule,
        num_prompts=len(labels),
        coverage=coverage,
        precision=precision,
        unlabelled=dict(sorted(reasons.items())),
        by_vote_share=tuple(
            _vote_share_bin(labels, gold, low, high) for low, high in pairwise(VOTE_SHARE_EDGES)
        ),
        votes=tuple(
            _vote(prompt_ids, completions, temperature, p_correct, gold, config, rule)
            for rule in rules
            for temperature in (None, *temperatures)
        ),
        teacher=_answers(completions, gold),
        student=_answers(student_completions, gold),
        min_p_correct=config.min_p_correct,
        judge=tuple(
            _confusion(completions, temperature, p_correct, gold, config.min_p_correct)
            for temperature in ((None, *temperatures) if gold and judgements else ())
        ),
    )


def _at(rows: Sequence[Completion], temperature: float | None) -> list[Completion]:
    """The completions of one temperature, or all."""
    return [row for row in rows if temperature is None or row.temperature == temperature]


def _share(hits: Sequence[bool]) -> float | None:
    """Share of the true ones, None of nothing."""
    return sum(hits) / len(hits) if hits else None


def _precision(labels: Sequence[PseudoLabel], gold: Mapping[str, str]) -> float | None:
    """Share of the labels with gold that equal it."""
    return _share(
        [
            label.answer == gold[label.prompt_id]
            for label in labels
            if label.answer is not None and label.prompt_id in gold
        ]
    )


def _coverage_and_precision(
    labels: Sequence[PseudoLabel], gold: Mapping[str, str]
) -> tuple[float | None, float | None]:
    return _share([label.answer is not None for label in labels]), _precision(labels, gold)


def _vote_share_bin(
    labels: Sequence[PseudoLabel], gold: Mapping[str, str], low: float, high: float
) -> VoteShareBin:
    inside = [label for label in labels if label.answer is not None and low < label.vote_share <= high]
    return VoteShareBin(low=low, high=high, num_labels=len(inside), precision=_precision(inside, gold))


def _vote(
    prompt_ids: Sequence[str],
    completions: Sequence[Completion],
    temperature: float | None,
    p_correct: Mapping[str, float],
    gold: Mapping[str, str],
    config: LabelConfig,
    rule: str,
) -> Vote:
    """Vote again with one rule, on the completions of one temperature."""
    rows = _at(completions, temperature)
    judged = {row.completion_id: p_correct.get(row.completion_id, 0.0) for row in rows}
    by_prompt: dict[str, list[Completion]] = defaultdict(list)
    for row in rows:
        by_prompt[row.prompt_id].append(row)
    asked = config.model_copy(update={"rule": rule})
    labels = [pseudo_label(prompt_id, by_prompt[prompt_id], judged, asked) for prompt_id in prompt_ids]
    coverage, precision = _coverage_and_precision(labels, gold)
    return Vote(rule=rule, temperature=temperature, coverage=coverage, precision=precision)


def _answers(completions: Sequence[Completion], gold: Mapping[str, str]) -> tuple[Answers, ...]:
    """Accuracy of single completions, over all temperatures and by temperature."""
    answers = []
    for temperature in (None, *sorted({row.temperature for row in completions})):
        rows = _at(completions, temperature)
        right = [row.answer == gold[row.prompt_id] for row in rows if row.prompt_id in gold]
        answers.append(Answers(temperature=temperature, num_completions=len(rows), accuracy=_share(right)))
    return tuple(answers)


def _confusion(
    completions: Sequence[Completion],
    temperature: float | None,
    p_correct: Mapping[str, float],
    gold: Mapping[str, str],
    min_p_correct: float,
) -> Confusion:
    """Judged completions of one temperature that have gold, by judged and by really correct."""
    rows = [
        row
        for row in _at(completions, temperature)
        if row.prompt_id in gold and row.completion_id in p_correct
    ]
    scores = np.array([p_correct[row.completion_id] for row in rows], dtype=np.float64)
    right = np.array([row.answer == gold[row.prompt_id] for row in rows], dtype=bool)
    judged = scores >= min_p_correct
    return Confusion(
        temperature=temperature,
        tp=int((judged & right).sum()),
        fp=int((judged & ~right).sum()),
        tn=int((~judged & ~right).sum()),
        fn=int((~judged & right).sum()),
        auc=auc(scores, right.astype(np.float64)),
    )
