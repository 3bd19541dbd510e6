"""The judge against gold: confusion, calibration; without it: what order and length do to its verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from limbeck.label_quality.model import Calibration, Confusion, LengthBias, PositionBias
from limbeck.label_quality.votes import TeacherAnswer, share
from limbeck.metrics import (
    FloatArray,
    auc,
    correlation,
    expected_calibration_error,
    reliability,
    within_correlation,
)
from limbeck.records import Judgement


@dataclass
class Orders:
    """Adds up judgements that were made in both orders; they need not be kept."""

    min_p_correct: float
    count: int = 0
    differences: float = 0.0
    sizes: float = 0.0
    flips: int = 0

    def add(self, row: Judgement) -> None:
        """Count one judgement."""
        if row.p_yes_first is None or row.p_no_first is None:
            return
        difference = row.p_yes_first - row.p_no_first
        self.count += 1
        self.differences += difference
        self.sizes += abs(difference)
        self.flips += (row.p_yes_first >= self.min_p_correct) != (row.p_no_first >= self.min_p_correct)

    def bias(self) -> PositionBias | None:
        """What the order does; None where nothing was asked in both."""
        if not self.count:
            return None
        return PositionBias(
            num_completions=self.count,
            mean_difference=self.differences / self.count,
            mean_absolute=self.sizes / self.count,
            flipped=share(self.flips, self.count),
        )


@dataclass(frozen=True)
class Judged:
    """The judged teacher completions, one number each; columns, as there may be a million."""

    temperature: FloatArray
    num_chars: FloatArray
    said: FloatArray
    """P(correct) as the judge said it."""
    used: FloatArray
    """P(correct) as the votes go by it."""
    right: NDArray[np.bool_]
    with_gold: NDArray[np.bool_]
    answer: NDArray[np.int64]
    """Completions of one prompt with one answer share a number; -1: no answer."""
    calibrated: FloatArray = field(default_factory=lambda: np.empty(0))
    """P(correct) by the votes of other prompts; empty where that cannot be."""


def judged(
    rows: Sequence[TeacherAnswer],
    said: Mapping[str, float],
    calibrated: Mapping[str, float] | None,
    gold: Mapping[str, str],
    *,
    calibrate: bool,
) -> Judged:
    """Columns of the completions that have a judgement.

    Args:
        rows: Teacher completions, with answers that equal gold written as gold is.
        said: Completion id -> P(correct) as the judge said it.
        calibrated: Completion id -> P(correct) by the votes, or None.
        gold: Prompt id -> gold answer.
        calibrate: Whether votes go by the calibrated P.
    """
    rows = [row for row in rows if row.completion_id in said]
    numbers: dict[tuple[str, str], int] = {}
    by_vote = np.array([calibrated[row.completion_id] for row in rows] if calibrated else [], np.float64)
    as_said = np.array([said[row.completion_id] for row in rows], np.float64)
    return Judged(
        temperature=np.array([row.temperature for row in rows], np.float64),
        num_chars=np.array([row.num_chars for row in rows], np.float64),
        said=as_said,
        used=by_vote if calibrate and len(by_vote) else as_said,
        right=np.array(
            [row.answer is not None and row.answer == gold.get(row.prompt_id) for row in rows], bool
        ),
        with_gold=np.array([row.prompt_id in gold for row in rows], bool),
        answer=np.array(
            [
                -1 if row.answer is None else numbers.setdefault((row.prompt_id, row.answer), len(numbers))
                for row in rows
            ],
            np.int64,
        ),
        calibrated=by_vote,
    )


def confusion(rows: Judged, temperature: float | None, min_p_correct: float) -> Confusion:
    """Judged completions of one temperature that have gold, by judged and by really correct."""
    some = rows.with_gold & (True if temperature is None else rows.temperature == temperature)
    scores, right = rows.used[some], rows.right[some]
    accepted = scores >= min_p_correct
    return Confusion(
        temperature=temperature,
        tp=int((accepted & right).sum()),
        fp=int((accepted & ~right).sum()),
        tn=int((~accepted & ~right).sum()),
        fn=int((~accepted & right).sum()),
        auc=auc(scores, right.astype(np.float64)),
    )


def calibrations(rows: Judged) -> tuple[Calibration, ...]:
    """Calibration error against gold, of P(correct) as said and, where there is one, as calibrated."""
    right = rows.right[rows.with_gold].astype(np.float64)
    return tuple(
        Calibration(
            calibrate=name,
            ece=expected_calibration_error(values[rows.with_gold], right),
            bins=reliability(values[rows.with_gold], right),
        )
        for name, values in (("none", rows.said), ("majority", rows.calibrated))
        if len(values)
    )


def length_bias(rows: Judged) -> LengthBias:
    """Correlation of what the judge says with length, where length should not matter."""
    right, wrong = rows.with_gold & rows.right, rows.with_gold & ~rows.right
    answered = rows.answer >= 0
    return LengthBias(
        right=correlation(rows.said[right], rows.num_chars[right]),
        wrong=correlation(rows.said[wrong], rows.num_chars[wrong]),
        same_answer=within_correlation(rows.said[answered], rows.num_chars[answered], rows.answer[answered]),
    )
