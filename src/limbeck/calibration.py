"""Calibration of the judge without gold: from what it says to the chance to agree with the other answers.

A judge's P(correct) ranks better than it means what it says: models are often surer than they are right.
Training may not see gold, so the yardstick is the vote: does the completion have the answer that most of the
prompt's other completions have? That is a proxy, and calibrated P is the chance of that. Where most
completions are wrong together it is too high; the label report measures both against gold.

Cross-fitted by prompt: the line that is put through one part of the prompts is used on the others, so no
completion is judged by its own prompt's vote.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

Floats = NDArray[np.float64]
NUM_FOLDS = 5
NEAREST = 1e-4
"""P is kept so far from 0 and 1: verdicts of text alone are 0 or 1, and have no logit."""


class Line(NamedTuple):
    """Calibrated P is the sigmoid of slope x s + offset, s being the logit of P(correct)."""

    slope: float
    """At least 0."""
    offset: float

    def through(self, p_correct: Floats) -> Floats:
        """Calibrated P, 0 to 1, of what the judge says."""
        calibrated: Floats = scipy.special.expit(self.slope * _logits(p_correct) + self.offset)
        return calibrated


def fold(prompt_id: str) -> int:
    """Which part of the prompts one belongs to, by a hash of its id."""
    return zlib.crc32(prompt_id.encode()) % NUM_FOLDS


def cross_fitted(
    p_correct: Floats, agrees: Sequence[bool | None], folds: Sequence[int]
) -> tuple[Line, ...] | None:
    """A line for each part of the prompts, fitted on the completions of the other parts.

    Args:
        p_correct: What the judge says of each completion, 0 to 1.
        agrees: Whether each has the answer that most others of its prompt have; None where that is open.
        folds: The part of each completion's prompt, see `fold`.

    Returns:
        NUM_FOLDS lines; None when a part has no completion of other parts to be fitted on.
    """
    scores = _logits(p_correct)
    known = np.array([item is not None for item in agrees], dtype=bool)
    targets = np.array([bool(item) for item in agrees], dtype=bool)
    parts = np.asarray(folds)
    lines = []
    for part in range(NUM_FOLDS):
        others = known & (parts != part)
        if not others.any():
            return None
        lines.append(fit(scores[others], targets[others]))
    return tuple(lines)


def calibrated(p_correct: Floats, lines: Sequence[Line], folds: Sequence[int]) -> Floats:
    """P(correct) of all completions, each by the line of its part; within a part the ranking stays."""
    parts = np.asarray(folds)
    result = np.empty(len(p_correct))
    for part, line in enumerate(lines):
        result[parts == part] = line.through(p_correct[parts == part])
    return result


def to_metrics(lines: Sequence[Line]) -> dict[str, float]:
    """How `label` hands its lines on: with its labels, as metrics."""
    slopes = {f"label/calibration_slope_{part}": line.slope for part, line in enumerate(lines)}
    return slopes | {f"label/calibration_offset_{part}": line.offset for part, line in enumerate(lines)}


def from_metrics(metrics: Mapping[str, float]) -> tuple[Line, ...]:
    """The lines again; none where nothing was calibrated."""
    if "label/calibration_slope_0" not in metrics:
        return ()
    return tuple(
        Line(metrics[f"label/calibration_slope_{part}"], metrics[f"label/calibration_offset_{part}"])
        for part in range(NUM_FOLDS)
    )


def fit(scores: Floats, targets: NDArray[np.bool_]) -> Line:
    """The line a s + b whose sigmoid is the most likely given which completions agreed.

    Targets are drawn in by their number, `(n1 + 1) / (n1 + 2)` and `1 / (n0 + 2)`, so one class alone gives
    no infinite line. The slope is never below 0: a judge that is worse than chance then tells nothing,
    instead of being believed the other way round.

    Args:
        scores: Logits of P(correct).
        targets: Whether each completion agreed.

    Returns:
        Slope a, at least 0, and offset b.

    Source: Platt 1999, "Probabilistic outputs for support vector machines", section 2.2; with b = 0 it is the
    temperature scaling of Guo et al. 2017 (arXiv 1706.04599), section 4.2. The bound of the slope is ours.
    """
    num_right = int(targets.sum())
    high, low = (num_right + 1) / (num_right + 2), 1 / (len(targets) - num_right + 2)
    wanted = np.where(targets, high, low)

    def loss(line: Floats) -> tuple[float, Floats]:
        z = line[0] * scores + line[1]
        gaps = scipy.special.expit(z) - wanted
        value = float(np.mean(np.logaddexp(0.0, z) - wanted * z))
        return value, np.array([np.mean(gaps * scores), np.mean(gaps)])

    found = scipy.optimize.minimize(
        loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=[(0.0, None), (None, None)]
    )
    return Line(float(found.x[0]), float(found.x[1]))


def _logits(p_correct: Floats) -> Floats:
    scores: Floats = scipy.special.logit(np.clip(p_correct, NEAREST, 1 - NEAREST))
    return scores
