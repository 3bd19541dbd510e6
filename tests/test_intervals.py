"""Bootstrap intervals: against a slow loop, against theory, and by seed."""

import numpy as np
import pytest
from scipy.stats import bootstrap, norm

from limbeck.intervals import (
    FloatArray,
    holm,
    mean_interval,
    paired_interval,
    paired_p_value,
    simultaneous_intervals,
)


def coins(num_prompts: int, chance: float, seed: int) -> FloatArray:
    return (np.random.default_rng(seed).random(num_prompts) < chance).astype(np.float64)


def test_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = coins(300, 0.6, seed=1)
    assert mean_interval(values, 500, seed=4) == mean_interval(values, 500, seed=4)
    assert mean_interval(values, 500, seed=4) != mean_interval(values, 500, seed=5)


def test_interval_equals_a_slow_loop_over_resamples() -> None:
    values = coins(200, 0.7, seed=2)
    rng = np.random.default_rng(9)
    means = [sum(values[rng.integers(200)] for _ in range(200)) / 200 for _ in range(2000)]
    low, high = np.percentile(means, [2.5, 97.5])
    assert mean_interval(values, 20000, seed=0) == pytest.approx((low, high), abs=0.011)


def test_interval_has_the_width_of_the_normal_approximation() -> None:
    values = coins(2000, 0.5, seed=3)
    interval = mean_interval(values, 4000, seed=0)
    assert interval is not None
    half = 1.96 * values.std() / np.sqrt(2000)
    assert interval == pytest.approx((values.mean() - half, values.mean() + half), abs=0.002)


def test_paired_interval_is_narrower_than_that_of_independent_rows() -> None:
    """Two rows that are right on nearly the same prompts: pairing takes the shared spread out."""
    b = coins(1000, 0.5, seed=5)
    a = np.maximum(b, coins(1000, 0.05, seed=6))
    paired = paired_interval(a, b, 2000, seed=0)
    independent = paired_interval(a, np.random.default_rng(0).permutation(b), 2000, seed=0)
    assert paired is not None
    assert independent is not None
    assert paired[0] > 0 > independent[0]
    assert paired[1] - paired[0] < 0.4 * (independent[1] - independent[0])


def test_paired_interval_equals_scipys_paired_bootstrap() -> None:
    a, b = coins(150, 0.6, seed=7), coins(150, 0.5, seed=8)
    theirs = bootstrap(
        (a, b),
        lambda x, y, axis: x.mean(axis) - y.mean(axis),
        paired=True,
        vectorized=True,
        n_resamples=20000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert paired_interval(a, b, 20000, seed=2) == pytest.approx((theirs.low, theirs.high), abs=0.007)


def test_many_prompts_are_drawn_in_batches() -> None:
    values = coins(100_000, 0.3, seed=9)
    assert mean_interval(values, 60, seed=0) == pytest.approx((0.3, 0.3), abs=0.01)


def test_one_prompt_has_no_interval() -> None:
    assert mean_interval(np.array([1.0]), 100, seed=0) is None


def test_equal_values_give_an_interval_of_no_width() -> None:
    assert mean_interval(np.ones(10), 100, seed=0) == (1.0, 1.0)


def test_rows_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="same prompts"):
        paired_interval(np.ones(3), np.ones(2), 10, seed=0)


def test_p_value_is_that_of_a_normal_test_and_small_only_for_a_real_difference() -> None:
    b = coins(800, 0.5, seed=1)
    a = np.maximum(b, coins(800, 0.1, seed=2))
    other = coins(800, 0.5, seed=3)
    far, near = (paired_p_value(one, b, 4000, seed=0) for one in (a, other))
    assert far is not None
    assert near is not None
    assert far < 0.001
    difference = other - b
    z = abs(difference.mean()) / (difference.std() / np.sqrt(800))
    assert near == pytest.approx(2 * norm.sf(z), abs=0.03)


def test_p_value_is_never_zero_and_one_where_nothing_differs() -> None:
    ones, none = np.ones(50), np.zeros(50)
    assert paired_p_value(ones, none, 99, seed=0) == pytest.approx(0.01)
    assert paired_p_value(ones, ones, 99, seed=0) == 1.0
    assert paired_p_value(ones[:1], none[:1], 99, seed=0) is None


@pytest.mark.parametrize(
    ("p_values", "corrected"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # the example of R's p.adjust, by hand
        ([0.5, 0.9, 0.4], [1.0, 1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
    ],
)
def test_holm_multiplies_by_what_is_left(p_values: list[float], corrected: list[float]) -> None:
    assert holm(p_values) == pytest.approx(corrected)


def by_prompt(values: FloatArray, first: int = 0) -> dict[str, float]:
    return {f"p{first + number}": float(value) for number, value in enumerate(values)}


def test_simultaneous_intervals_of_independent_means_are_as_wide_as_theory_says() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(600, 20)) * np.linspace(0.5, 3, 20)
    found = simultaneous_intervals([by_prompt(column) for column in values.T], 10000, seed=0)
    width = norm.ppf(0.5 + 0.5 * 0.95 ** (1 / 20))  # of the largest of 20 independent ones
    for interval, column in zip(found, values.T, strict=True):
        assert interval is not None
        error = column.std() / np.sqrt(600)
        assert interval == pytest.approx((column.mean() - width * error, column.mean() + width * error),
                                         abs=0.05 * width * error)  # fmt: skip


def test_simultaneous_intervals_of_one_mean_and_of_copies_of_it_are_its_own() -> None:
    values = coins(500, 0.3, seed=2)
    own = mean_interval(values, 10000, seed=0)
    for copies in (1, 10):
        found = simultaneous_intervals([by_prompt(values)] * copies, 10000, seed=0)
        assert found == [pytest.approx(own, abs=0.003)] * copies


def test_all_simultaneous_intervals_hold_together_in_95_of_100_worlds() -> None:
    """Differences of ten rows to one baseline, which go together, each over half of the prompts."""
    held = []
    for world in range(200):
        rng = np.random.default_rng(world)
        values = rng.normal(size=(80, 1)) + rng.normal(size=(80, 10))
        rows = [by_prompt(values[number % 2 * 40 :][:40, number], number % 2 * 40) for number in range(10)]
        found = simultaneous_intervals(rows, 300, seed=world)
        held.append(all(item is not None and item[0] <= 0 <= item[1] for item in found))
    assert np.mean(held) == pytest.approx(0.95, abs=0.045)


def test_what_never_differs_has_an_interval_of_no_width_and_what_is_one_prompt_none() -> None:
    values = coins(50, 0.5, seed=3)
    found = simultaneous_intervals([by_prompt(values), by_prompt(np.ones(50)), {"p0": 1.0}, {}], 200, seed=0)
    assert found[0] == simultaneous_intervals([by_prompt(values)], 200, seed=0)[0]
    assert found[1:] == [(1.0, 1.0), None, None]
    assert simultaneous_intervals([{}], 200, seed=0) == [None]
    assert simultaneous_intervals([], 200, seed=0) == []
