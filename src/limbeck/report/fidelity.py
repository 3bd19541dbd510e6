"""How far a model gives its teacher's answers, right or wrong: fidelity, which accuracy does not show."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from limbeck.answers import Same
from limbeck.intervals import FloatArray, mean_interval
from limbeck.report.answers import Answer, Answers
from limbeck.report.model import Fidelity

TEACHER = "teacher"


def fidelity(answers: Answers, same: Same, num_resamples: int, seed: int) -> tuple[Fidelity, ...]:
    """Each row beside the teacher, on the prompts that both have; empty without a teacher.

    Two models that are mostly right agree mostly, by their accuracy alone. Beyond that say two figures:
    agreement where the teacher is wrong, and error consistency.

    Args:
        answers: Of all rows. Sampled ones are left out: two draws of one model differ already.
        same: Whether two answers are the same.
        num_resamples: Bootstrap resamples over prompts of each interval.
        seed: The same seed gives the same intervals.
    """
    rows = []
    for (name, decoding), of_row in answers.items():
        of_teacher = answers.get((TEACHER, decoding))
        if decoding == "sampled" or name == TEACHER or of_teacher is None:
            continue
        shared = [prompt for prompt in of_row if prompt in of_teacher]
        agreed = np.array([_agreement(of_row[p], of_teacher[p], same) for p in shared], dtype=np.float64)
        wrong = np.array([_is_wrong(of_teacher[prompt]) for prompt in shared], dtype=bool)
        copied = agreed[wrong]
        rows.append(
            Fidelity(
                name=name,
                decoding=decoding,
                n=len(shared),
                agreement=float(agreed.mean()) if shared else None,
                interval=mean_interval(agreed, num_resamples, seed),
                num_teacher_wrong=len(copied),
                agreement_teacher_wrong=float(copied.mean()) if len(copied) else None,
                interval_teacher_wrong=mean_interval(copied, num_resamples, seed),
                error_consistency=error_consistency(*_right(of_row, of_teacher, shared)),
            )
        )
    return tuple(rows)


def error_consistency(a: FloatArray, b: FloatArray) -> float:
    """Whether two models are right and wrong on the same prompts, beyond what their accuracies make likely.

    `kappa = (c_obs - c_exp) / (1 - c_exp)`, with `c_exp = p_a p_b + (1 - p_a)(1 - p_b)`: Cohen's kappa of
    right and wrong.

    Args:
        a: Chance that the one is right, by prompt, 0 to 1.
        b: The same of the other one.

    Returns:
        1 for the same prompts, 0 for independent ones; nan without prompts, or where nothing varies.

    Source: Geirhos et al. 2020 (arXiv 2006.16736), section 2.
    """
    if not len(a):
        return math.nan
    observed = float((a * b + (1 - a) * (1 - b)).mean())
    expected = float(a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean()))
    return (observed - expected) / (1 - expected) if expected < 1 else math.nan


def _agreement(ours: Sequence[Answer], theirs: Sequence[Answer], same: Same) -> float:
    """The chance that an answer of ours is one of theirs; where one side gives none, they do not agree."""
    return sum(_agree(a, b, same) for a in ours for b in theirs) / (len(ours) * len(theirs))


def _agree(a: Answer, b: Answer, same: Same) -> bool:
    """Gold decides where it can: right answers are all the same, and no wrong one is."""
    if a.answer is None or b.answer is None or a.correct != b.correct:
        return False
    return bool(a.correct) or same(a.answer, b.answer)


def _is_wrong(given: Sequence[Answer]) -> bool:
    return all(item.correct is False for item in given)


def _right(
    of_row: Mapping[str, Sequence[Answer]], of_teacher: Mapping[str, Sequence[Answer]], shared: Sequence[str]
) -> Iterator[FloatArray]:
    """The chance of a right answer of both, by prompt with gold."""
    with_gold = [prompt for prompt in shared if of_row[prompt][0].correct is not None]
    for answers in (of_row, of_teacher):
        yield np.array(
            [np.mean([bool(item.correct) for item in answers[prompt]]) for prompt in with_gold],
            dtype=np.float64,
        )
