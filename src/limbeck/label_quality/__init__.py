"""How good pseudo labels and judgements are, against gold: for analysis, never for training.

Everything here is a plain count. Where gold is missing, coverage stays and precision is null; what there
are no completions or judgements for is empty. Completions come one by one: their texts are not kept.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from operator import eq
from typing import TypeVar

from limbeck.answers.groups import representatives
from limbeck.config import LabelConfig
from limbeck.label_quality.judge import Orders, calibrations, confusion, judged, length_bias
from limbeck.label_quality.model import Answers, LabelQuality, VoteShareBin
from limbeck.label_quality.votes import (
    Agreed,
    TeacherAnswer,
    by_samples,
    by_temperature,
    coverage_and_precision,
    in_part,
    share,
)
from limbeck.label_quality.worst import wrong_judgements, wrong_labels
from limbeck.labels import GOLD, Label, calibrated_by_vote
from limbeck.records import Completion, Judgement, PseudoLabel

VOTE_SHARE_EDGES = (0.0, 0.25, 0.5, 0.75, 1.0)

Answer = TypeVar("Answer", Label, TeacherAnswer)


def label_quality(
    labels: Iterable[PseudoLabel],
    completions: Iterable[Completion],
    student_completions: Iterable[Completion],
    judgements: Iterable[Judgement],
    gold: Mapping[str, str],
    config: LabelConfig,
    same: Callable[[str, str], bool] = eq,
    num_examples: int = 8,
    *,
    open_ended: bool = False,
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
        num_examples: How many of the worst labels and judgements are named.
        open_ended: Whether answers are judged alone: then the rule `judge` stands alone, and vote shares have
            no threshold.
    """
    known = [_as_gold(Label.of(row), gold, same) for row in labels]
    orders, said = Orders(config.min_p_correct), dict[str, float]()
    for row in judgements:
        said[row.completion_id] = row.p_correct
        orders.add(row)
    groups = _grouped(
        (_answered(row) for row in completions), [label.prompt_id for label in known], gold, same
    )
    teacher = [row for rows in groups.values() for row in rows]
    temperatures = sorted({row.temperature for row in teacher})

    calibrated = calibrated_by_vote(groups, said) if said and not open_ended else None
    by_vote = calibrated.p_correct if calibrated else None
    columns = judged(teacher, said, by_vote, gold, calibrate=config.calibrate == "majority")
    believed = by_vote if config.calibrate == "majority" and by_vote else said
    p_correct = {row.completion_id: believed.get(row.completion_id, 0.0) for row in teacher}

    compared: tuple[str, ...] = () if open_ended else ("majority",)
    rules = compared + (() if not said else ("judge",) if open_ended else ("judged_majority", "judge"))
    held = [
        pair
        for rule in (rules if teacher else ())
        for pair in by_temperature(groups, temperatures, p_correct, gold, config, rule)
    ]
    agreed = Agreed(() if open_ended else known, same)  # no open answer is the same as a label
    student = _answers(
        (_as_gold(agreed.add(_answered(row)), gold, same) for row in student_completions), gold
    )
    coverage, precision = coverage_and_precision(known, gold)
    return LabelQuality(
        rule="gold" if any(label.reason == GOLD for label in known) else config.rule,
        num_prompts=len(known),
        coverage=coverage,
        precision=precision,
        unlabelled=dict(sorted(Counter(label.reason for label in known if label.answer is None).items())),
        by_vote_share=tuple(
            _vote_share_bin(known, gold, agreed, low, high) for low, high in pairwise(VOTE_SHARE_EDGES)
        ),
        votes=tuple(vote for vote, _ in held),
        by_samples=tuple(
            item for rule in rules for item in by_samples(groups, p_correct, gold, config, rule)
        ),
        curves=() if open_ended else tuple(curve for _, curve in held),
        teacher=_answers(teacher, gold),
        student=student,
        min_p_correct=config.min_p_correct,
        calibrate=config.calibrate,
        judge=tuple(
            confusion(columns, temperature, config.min_p_correct)
            for temperature in ((None, *temperatures) if gold and len(columns.said) else ())
        ),
        calibration=calibrations(columns) if gold and len(columns.said) else (),
        position=orders.bias(),
        length=length_bias(columns) if len(columns.said) else None,
        wrong_labels=wrong_labels(known, groups, p_correct, gold, same, num_examples),
        wrong_judgements=wrong_judgements(teacher, believed, gold, num_examples),
    )


def _answered(row: Completion) -> TeacherAnswer:
    """A completion without its text; ids and answers that come again and again are kept once."""
    answer = None if row.answer is None else sys.intern(row.answer)
    return TeacherAnswer(row.completion_id, sys.intern(row.prompt_id), answer, row.temperature, len(row.text))


def _as_gold(row: Answer, gold: Mapping[str, str], same: Callable[[str, str], bool]) -> Answer:
    """A label or completion whose answer, if it is the same as gold, is written as gold is."""
    known = gold.get(row.prompt_id)
    if row.answer is None or known is None or not same(row.answer, known):
        return row
    return row._replace(answer=known)


def _grouped(
    rows: Iterable[TeacherAnswer],
    prompt_ids: Sequence[str],
    gold: Mapping[str, str],
    same: Callable[[str, str], bool],
) -> dict[str, list[TeacherAnswer]]:
    """The completions of each prompt, in the order of their ids.

    Answers that are the same are written in one way, which is gold's where it is known.
    """
    groups: dict[str, list[TeacherAnswer]] = {prompt_id: [] for prompt_id in prompt_ids}
    for row in rows:
        groups.setdefault(row.prompt_id, []).append(row)
    for prompt_id, group in groups.items():
        # By the order in which they came: the label stage's vote takes the first of equally frequent ways.
        stands = representatives((row.answer for row in group), same, gold.get(prompt_id))
        group[:] = [
            row
            if row.answer is None or stands[row.answer] == row.answer
            else row._replace(answer=stands[row.answer])
            for row in group
        ]
        group.sort(key=lambda row: row.completion_id)
    return groups


def _vote_share_bin(
    labels: Sequence[Label], gold: Mapping[str, str], agreed: Agreed, low: float, high: float
) -> VoteShareBin:
    inside = [label for label in labels if label.answer is not None and in_part(label.vote_share, low, high)]
    _, precision = coverage_and_precision(inside, gold)
    return VoteShareBin(
        low=low,
        high=high,
        num_labels=len(inside),
        precision=precision,
        student_agreement=agreed.share(low, high),
    )


def _answers(completions: Iterable[TeacherAnswer], gold: Mapping[str, str]) -> tuple[Answers, ...]:
    """Accuracy of single completions, over all temperatures and by temperature."""
    number: Counter[float] = Counter()
    with_gold: Counter[float] = Counter()
    right: Counter[float] = Counter()
    for row in completions:
        number[row.temperature] += 1
        with_gold[row.temperature] += row.prompt_id in gold
        right[row.temperature] += row.answer is not None and row.answer == gold.get(row.prompt_id)
    each = [
        Answers(temperature=item, num_completions=number[item], accuracy=share(right[item], with_gold[item]))
        for item in sorted(number)
    ]
    total = Answers(
        temperature=None,
        num_completions=number.total(),
        accuracy=share(right.total(), with_gold.total()),
    )
    return (total, *each) if each else ()
