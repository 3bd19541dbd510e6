"""Percentile bootstrap intervals of means over prompts.

The prompt is what is drawn anew, never the completion: completions of one prompt depend on each
other. A prompt's value is the mean over its samples.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

FloatArray = NDArray[np.float64]
Interval = tuple[float, float]

BATCH_VALUES = 1 << 22
"""Most values drawn at once: 32 MiB, whatever the number of prompts."""


def mean_interval(values: FloatArray, num_resamples: int, seed: int) -> Interval | None:
    """95% interval of the mean of one value a prompt.

    Args:
        values: One value a prompt.
        num_resamples: How often as many prompts are drawn anew, with replacement.
        seed: The same seed gives the same interval.

    Returns:
        The 2.5th and 97.5th percentile of the resampled means; None for fewer than two prompts, which
        say nothing about spread.

    Source: Efron 1979, "Bootstrap methods: another look at the jackknife"; the percentile interval is
    in Efron and Tibshirani 1993, chapter 13.
    """
    if len(values) < 2:
        return None
    result = bootstrap(
        (values,),
        np.mean,
        n_resamples=num_resamples,
        batch=max(1, BATCH_VALUES // len(values)),
        confidence_level=0.95,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def paired_interval(a: FloatArray, b: FloatArray, num_resamples: int, seed: int) -> Interval | None:
    """95% interval of `mean(a) - mean(b)`, where both hold one value of each prompt, in the same order.

    A resample draws prompts with both their values, so its difference of means is the mean of the
    drawn differences: the paired bootstrap is the bootstrap of `a - b`.

    Source: Koehn 2004, "Statistical significance tests for machine translation evaluation", section 4.
    """
    if len(a) != len(b):
        raise ValueError(f"pairs need the same prompts on both sides, got {len(a)} and {len(b)} values")
    return mean_interval(a - b, num_resamples, seed)


def paired_p_value(a: FloatArray, b: FloatArray, num_resamples: int, seed: int) -> float | None:
    """Two-sided p-value of `mean(a) = mean(b)`, by a bootstrap of the differences shifted to mean 0.

    Args:
        a: One value a prompt.
        b: One value of each of the same prompts, in the same order.
        num_resamples: How often as many prompts are drawn anew; no p is below 1 / (num_resamples + 1).
        seed: The same seed gives the same value.

    Returns:
        The share of resamples whose mean is as far from 0 as the difference found, counting that one too;
        None for fewer than two prompts.

    Source: Efron and Tibshirani 1993, section 16.4; the one more in both counts as in Davison and Hinkley
    1997, equation 4.11.
    """
    if len(a) != len(b):
        raise ValueError(f"pairs need the same prompts on both sides, got {len(a)} and {len(b)} values")
    if len(a) < 2:
        return None
    difference = a - b
    found, centred = abs(float(difference.mean())), difference - difference.mean()
    rng, as_far, left = np.random.default_rng(seed), 0, num_resamples
    while left:
        batch = min(left, max(1, BATCH_VALUES // len(centred)))
        drawn = centred[rng.integers(len(centred), size=(batch, len(centred)))].mean(axis=1)
        as_far += int((np.abs(drawn) >= found - 1e-12).sum())
        left -= batch
    return (as_far + 1) / (num_resamples + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number: where one is below alpha, the chance of any false claim is too.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none becomes smaller than one before.

    Args:
        p_values: Of all comparisons of a family, 0 to 1.

    Returns:
        The corrected ones in the same order, at most 1.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure", section 3.
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected
