"""Percentile bootstrap intervals of means over prompts.

The prompt is what is drawn anew, never the completion: completions of one prompt depend on each
other. A prompt's value is the mean over its samples.
"""

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
