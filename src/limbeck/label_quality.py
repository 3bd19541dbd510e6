"""How good pseudo labels and judgements are, against gold: for analysis, never for training.

Everything here is a plain count. Where gold is missing, coverage stays and precision is null; what there
are no completions or judgements for is empty. Completions come one by one: their texts are not kept.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from operator import eq
from typing import NamedTuple, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from limbeck.answers.groups import representatives
from limbeck.config import LabelConfig
from limbeck.labels import Label, pseudo_label
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
    """Plain and judged votes, over all temperatures and by temperature; empty without teacher completions."""
    teacher: tuple[Answers, ...]
    """Teacher completions, over all temperatures and by temperature; empty without any."""
    student: tuple[Answers, ...]
    """The same of the warmed-up student."""
    min_p_correct: float
    judge: tuple[Confusion, ...]
    """Over all temperatures and by temperature; empty without gold or judgements."""


class TeacherAnswer(NamedTuple):
    """What of a teacher completion is kept in memory."""

    completion_id: str
    prompt_id: str
    answer: str | None
    temperature: float


Answer = TypeVar("Answer", Label, TeacherAnswer)


def label_quality(
    labels: Iterable[PseudoLabel],
    completions: Iterable[Completion],
    student_completions: Iterable[Completion],
    judgements: Iterable[Judgement],
    gold: Mapping[str, str],
    config: LabelConfig,
    same: Callable[[str, str], bool] = eq,
) -> LabelQuality:
    """Compare labels, completions and judgements with gold.

    Args:
        labels: The run's pseudo labels, one for each prompt.
        completions: Teacher completions; may be none.
        student_completions: Completions of the warmed-up student; may be none.
        judgements: Of the teacher completions; one without a judgement counts as not judged correct.
        gold: Prompt id -> gold answer in its normal form; may be empty.
        config: Rule and thresholds of the run.
        same: Whether two answers are the same.
    """
    known = [_as_gold(Label.of(row), gold, same) for row in labels]
    p_correct = {row.completion_id: row.p_correct for row in judgements}
    teacher = _grouped([_answered(row) for row in completions], gold, same)
    judged = {row.completion_id: p_correct.get(row.completion_id, 0.0) for row in teacher}
    temperatures = sorted({row.temperature for row in teacher})
    groups = (None, *temperatures) if teacher else ()
    prompt_ids = [label.prompt_id for label in known]
    rules = dict.fromkeys(("majority", "judged_majority", config.rule) if p_correct else ("majority",))
    reasons = Counter(label.reason for label in known if label.answer is None)
    coverage, precision = _coverage_and_precision(known, gold)
    return LabelQuality(
        rule=config.rule,
        num_prompts=len(known),
        coverage=coverage,
        precision=precision,
        unlabelled=dict(sorted(reasons.items())),
        by_vote_share=tuple(
            _vote_share_bin(known, gold, low, high) for low, high in pairwise(VOTE_SHARE_EDGES)
        ),
        votes=tuple(
            _vote(prompt_ids, teacher, temperature, judged, gold, config, rule)
            for rule in rules
            for temperature in groups
        ),
        teacher=_answers(teacher, gold),
        student=_answers((_as_gold(_answered(row), gold, same) for row in student_completions), gold),
        min_p_correct=config.min_p_correct,
        judge=tuple(
            _confusion(teacher, temperature, p_correct, gold, config.min_p_correct)
            for temperature in (groups if gold and p_correct else ())
        ),
    )


def _answered(row: Completion) -> TeacherAnswer:
    """A completion without its text; ids and answers that come again and again are kept once."""
    answer = None if row.answer is None else sys.intern(row.answer)
    return TeacherAnswer(row.completion_id, sys.intern(row.prompt_id), answer, row.temperature)


def _as_gold(row: Answer, gold: Mapping[str, str], same: Callable[[str, str], bool]) -> Answer:
    """A label or completion whose answer, if it is the same as gold, is written as gold is."""
    known = gold.get(row.prompt_id)
    if row.answer is None or known is None or not same(row.answer, known):
        return row
    return row._replace(answer=known)


def _grouped(
    rows: Sequence[TeacherAnswer], gold: Mapping[str, str], same: Callable[[str, str], bool]
) -> list[TeacherAnswer]:
    """Completions with answers that are the same written in one way, which is gold's where it is known."""
    given: dict[str, list[str | None]] = defaultdict(list)
    for row in rows:
        given[row.prompt_id].append(row.answer)
    stands = {
        prompt_id: representatives(item, same, gold.get(prompt_id)) for prompt_id, item in given.items()
    }
    return [
        row if row.answer is None else row._replace(answer=stands[row.prompt_id][row.answer]) for row in rows
    ]


def _at(rows: Sequence[TeacherAnswer], temperature: float | None) -> list[TeacherAnswer]:
    """The completions of one temperature, or all."""
    return [row for row in rows if temperature is None or row.temperature == temperature]


def _share(hits: int, total: int) -> float | None:
    """Share of the hits, None of nothing."""
    return hits / total if total else None


def _coverage_and_precision(
    labels: Iterable[Label], gold: Mapping[str, str]
) -> tuple[float | None, float | None]:
    """Share of the prompts with a label; share of the labels with gold that equal it."""
    num_prompts = num_labels = num_with_gold = num_right = 0
    for label in labels:
        num_prompts += 1
        if label.answer is not None:
            num_labels += 1
            num_with_gold += label.prompt_id in gold
            num_right += label.answer == gold.get(label.prompt_id)
    return _share(num_labels, num_prompts), _share(num_right, num_with_gold)


def _vote_share_bin(
    labels: Sequence[Label], gold: Mapping[str, str], low: float, high: float
) -> VoteShareBin:
    inside = [label for label in labels if label.answer is not None and low < label.vote_share <= high]
    _, precision = _coverage_and_precision(inside, gold)
    return VoteShareBin(low=low, high=high, num_labels=len(inside), precision=precision)


def _vote(
    prompt_ids: Sequence[str],
    completions: Sequence[TeacherAnswer],
    temperature: float | None,
    judged: Mapping[str, float],
    gold: Mapping[str, str],
    config: LabelConfig,
    rule: str,
) -> Vote:
    """Vote again with one rule, on the completions of one temperature."""
    by_prompt: dict[str, list[TeacherAnswer]] = defaultdict(list)
    for row in _at(completions, temperature):
        by_prompt[row.prompt_id].append(row)
    asked = config.model_copy(update={"rule": rule})
    labels = (
        pseudo_label(prompt_id, by_prompt.get(prompt_id, ()), judged, asked) for prompt_id in prompt_ids
    )
    coverage, precision = _coverage_and_precision(labels, gold)
    return Vote(rule=rule, temperature=temperature, coverage=coverage, precision=precision)


def _answers(completions: Iterable[TeacherAnswer], gold: Mapping[str, str]) -> tuple[Answers, ...]:
    """Accuracy of single completions, over all temperatures and by temperature."""
    number: Counter[float] = Counter()
    with_gold: Counter[float] = Counter()
    right: Counter[float] = Counter()
    for row in completions:
        number[row.temperature] += 1
        with_gold[row.temperature] += row.prompt_id in gold
        right[row.temperature] += row.answer is not None and row.answer == gold.get(row.prompt_id)
    by_temperature = [
        Answers(temperature=item, num_completions=number[item], accuracy=_share(right[item], with_gold[item]))
        for item in sorted(number)
    ]
    total = Answers(
        temperature=None,
        num_completions=number.total(),
        accuracy=_share(right.total(), with_gold.total()),
    )
    return (total, *by_temperature) if by_temperature else ()


def _confusion(
    completions: Sequence[TeacherAnswer],
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
