"""How well scores tell right from wrong: ranking, calibration, correlation.

All are nan where they are not defined (one class only, no pair, a constant); in rows that become
JSON, `Figure` turns that into null.
"""

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import scipy
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, RootModel

FloatArray = NDArray[np.float64]
RELIABILITY = "reliability.json"


def finite(value: float | None) -> float | None:
    """A number as it is; None for nan, infinity and None."""
    return value if value is not None and math.isfinite(value) else None


Figure = Annotated[float | None, AfterValidator(finite)]
"""A measured number of a report: null where it is not defined."""


def auc(scores: FloatArray, labels: FloatArray) -> float:
    """Area under the ROC curve: the chance that a right one scores above a wrong one, ties half.

    `(R - n1 (n1 + 1) / 2) / (n1 n0)`, with R the sum of the ranks of the n1 right ones.

    Args:
        scores: One number a completion, higher for more likely right.
        labels: 1 where right, 0 where wrong.

    Returns:
        0 to 1, 0.5 for chance; nan when one class is missing.

    Source: Hanley and McNeil 1982, "The meaning and use of the area under a receiver operating
    characteristic (ROC) curve"; the rank form is Mann and Whitney 1947.
    """
    won, num_pairs = _ranked_right(scores, labels)
    return won / num_pairs if num_pairs else math.nan


def pair_accuracy(scores: FloatArray, labels: FloatArray, groups: Sequence[str]) -> float:
    """Share of the (right, wrong) pairs of the same prompt whose right one scores higher, ties half.

    All pairs count alike, so a prompt weighs as much as it has pairs.

    Args:
        scores: One number a completion.
        labels: 1 where right, 0 where wrong.
        groups: The prompt of each completion.

    Returns:
        0 to 1, 0.5 for chance; nan when no prompt has both kinds.

    Source: the accuracy of a reward model on preferences, Ouyang et al. 2022 (arXiv 2203.02155),
    section 3.5; here each (right, wrong) pair of a prompt is one preference.
    """
    names = np.asarray(groups)
    order = np.argsort(names, kind="stable")
    starts = np.flatnonzero(names[order][1:] != names[order][:-1]) + 1
    won, num_pairs = 0.0, 0
    for rows in np.split(order, starts):
        group_won, group_pairs = _ranked_right(scores[rows], labels[rows])
        won += group_won
        num_pairs += group_pairs
    return won / num_pairs if num_pairs else math.nan


def expected_calibration_error(probabilities: FloatArray, labels: FloatArray, num_bins: int = 10) -> float:
    """Mean gap between predicted probability and observed frequency, over bins of equal width.

    `ECE = sum_m |B_m| / n * |acc(B_m) - conf(B_m)|`, where bin m holds ((m-1)/M, m/M] and the first
    bin 0 as well.

    Args:
        probabilities: Predicted P(right), 0 to 1.
        labels: 1 where right, 0 where wrong.
        num_bins: M.

    Returns:
        0 to 1, 0 for perfect; nan without rows.

    Source: Guo et al. 2017 (arXiv 1706.04599), equation 3 (from Naeini et al. 2015), here for P(right)
    itself and not for the confidence of the predicted class.
    """
    if not len(probabilities):
        return math.nan
    bins = np.clip(np.ceil(probabilities * num_bins).astype(int) - 1, 0, num_bins - 1)
    gaps = np.bincount(bins, weights=labels - probabilities, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(probabilities))


class ReliabilityBin(BaseModel):
    """One bin of a reliability diagram: what was predicted there, and what came."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float
    high: float
    count: int
    predicted: Figure
    """Mean predicted P(right)."""
    observed: Figure
    """Share that is right; on the diagonal it equals `predicted`."""


class Reliability(RootModel[dict[str, tuple[ReliabilityBin, ...]]]):
    """Reliability diagrams by what was measured: the file `reliability.json` beside a reward model.

    Written by the stage `reward`; read by `report`.
    """

    model_config = ConfigDict(frozen=True)


def reliability(
    probabilities: FloatArray, labels: FloatArray, num_bins: int = 10
) -> tuple[ReliabilityBin, ...]:
    """Predicted probability against observed frequency, in the bins of `expected_calibration_error`.

    Args:
        probabilities: Predicted P(right), 0 to 1.
        labels: 1 where right, 0 where wrong.
        num_bins: M.

    Source: reliability diagrams as in Guo et al. 2017 (arXiv 1706.04599), section 2.
    """
    bins = np.clip(np.ceil(probabilities * num_bins).astype(int) - 1, 0, num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    predicted = np.bincount(bins, weights=probabilities, minlength=num_bins)
    observed = np.bincount(bins, weights=labels, minlength=num_bins)
    return tuple(
        ReliabilityBin(
            low=place / num_bins,
            high=(place + 1) / num_bins,
            count=int(count),
            predicted=predicted[place] / count if count else None,
            observed=observed[place] / count if count else None,
        )
        for place, count in enumerate(counts)
    )


def correlation(a: FloatArray, b: FloatArray) -> float:
    """Linear correlation of two series.

    `r = sum((a - mean a)(b - mean b)) / sqrt(sum((a - mean a)^2) sum((b - mean b)^2))`.

    Returns:
        -1 to 1; nan when a series is constant or has fewer than two values.

    Source: Pearson 1895, "Note on regression and inheritance in the case of two parents".
    """
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def within_correlation(a: FloatArray, b: FloatArray, groups: NDArray[np.int64]) -> float:
    """Linear correlation of two series within groups: of their distances to the means of their groups.

    What differs between groups (hard prompts have long answers and low scores) has no part in it.

    Args:
        a: One number a row.
        b: Another.
        groups: The group of each row, a number from 0 on; a group of one adds nothing.

    Returns:
        -1 to 1; nan when a series is constant within all groups.

    Source: the within-group estimator, as in analysis of covariance; formula of `correlation` after
    the means are taken off.
    """
    if not len(groups):
        return math.nan
    sizes = np.maximum(np.bincount(groups), 1)
    apart = [values - (np.bincount(groups, weights=values) / sizes)[groups] for values in (a, b)]
    # A constant less its mean may leave a rounding error, which is no variation.
    x, y = (
        np.where(np.abs(part) > 1e-9 * np.abs(values).max(), part, 0.0)
        for part, values in zip(apart, (a, b), strict=True)
    )
    return correlation(x, y)


def _ranked_right(scores: FloatArray, labels: FloatArray) -> tuple[float, int]:
    """How many (right, wrong) pairs are ranked right, ties half (Mann-Whitney U); how many there are."""
    right = labels > 0.5
    num_right = int(right.sum())
    num_pairs = num_right * (len(labels) - num_right)
    if not num_pairs:
        return 0.0, 0
    ranks = scipy.stats.rankdata(scores)
    return float(ranks[right].sum() - num_right * (num_right + 1) / 2), num_pairs
