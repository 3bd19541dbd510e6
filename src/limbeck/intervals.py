"""Percentile bootstrap intervals of means over prompts.

The prompt is what is drawn anew, never the completion: completions of one prompt depend on each
other. A prompt's value is the mean over its samples.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import scipy
from numpy.typing import NDArray

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
    result = scipy.stats.bootstrap(
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


def simultaneous_intervals(
    differences: Sequence[Mapping[str, float]], num_resamples: int, seed: int
) -> list[Interval | None]:
    """95% intervals of several means that hold all at once: the chance that any misses its mean is 5%.

    Each is as many standard errors wide as the largest deviation of any of the means in 95% of the resamples.
    A resample draws prompts for all means together, so that means which go together cost less width than by
    Bonferroni.

    Args:
        differences: Of each comparison of a family, prompt id -> the difference on this prompt.
        num_resamples: How often as many prompts are drawn anew, with replacement.
        seed: The same seed gives the same intervals.

    Returns:
        In the same order; None for fewer than two prompts. Symmetric about the mean.

    Source: the sup-t band of Montiel Olea and Plagborg-Moller 2019, "Simultaneous confidence bands: theory,
    implementation, and an application to SVARs": the narrowest of those that are the same number of standard
    errors wide. Its quantile is by the bootstrap.
    """
    prompts = list(dict.fromkeys(prompt for of_one in differences for prompt in of_one))
    known = np.array([[prompt in of_one for of_one in differences] for prompt in prompts], dtype=np.float64)
    values = np.array([[of_one.get(prompt, 0.0) for of_one in differences] for prompt in prompts])
    usable = [len(of_one) > 1 for of_one in differences]
    if not any(usable):
        return [None] * len(differences)
    counts = known.sum(axis=0).clip(min=1)
    means = values.sum(axis=0) / counts
    errors = np.sqrt((known * (values - means) ** 2).sum(axis=0)) / counts
    rng, largest = np.random.default_rng(seed), list[FloatArray]()
    for drawn in _drawn(rng, len(prompts), num_resamples):
        resampled = drawn @ values / (drawn @ known).clip(min=1)
        deviations = np.zeros_like(resampled)
        np.divide(np.abs(resampled - means), errors, out=deviations, where=errors > 0)
        largest.append(deviations.max(axis=1))
    width = float(np.quantile(np.concatenate(largest), 0.95))
    return [
        (float(mean - width * error), float(mean + width * error)) if fits else None
        for mean, error, fits in zip(means, errors, usable, strict=True)
    ]


def _drawn(rng: np.random.Generator, num_prompts: int, num_resamples: int) -> Iterator[FloatArray]:
    """How often each prompt is drawn in each resample, some resamples at a time."""
    left = num_resamples
    while left:
        batch = min(left, max(1, BATCH_VALUES // num_prompts))
        places = (
            rng.integers(num_prompts, size=(batch, num_prompts)) + num_prompts * np.arange(batch)[:, None]
        )
        counts = np.bincount(places.ravel(), minlength=batch * num_prompts)
        yield counts.reshape(batch, num_prompts).astype(np.float64)
        left -= batch


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
