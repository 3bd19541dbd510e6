"""Metrics against numbers worked out by hand and against slow reference loops."""

import math

import numpy as np
import pytest

from limbeck.metrics import (
    FloatArray,
    auc,
    correlation,
    expected_calibration_error,
    pair_accuracy,
    reliability,
    within_correlation,
)


def array(*values: float) -> FloatArray:
    return np.array(values, dtype=np.float64)


def slow_pairs(scores: FloatArray, labels: FloatArray, groups: list[str]) -> tuple[float, int]:
    """Won and counted pairs, one by one."""
    won, count = 0.0, 0
    for i in range(len(scores)):
        for j in range(len(scores)):
            if groups[i] == groups[j] and labels[i] == 1 and labels[j] == 0:
                count += 1
                won += 1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0
    return won, count


def test_auc_by_hand() -> None:
    # Right: 0.8, 0.4. Wrong: 0.6, 0.4. Pairs: 0.8>0.6, 0.8>0.4, 0.4<0.6, 0.4=0.4 -> 2.5 of 4.
    assert auc(array(0.8, 0.6, 0.4, 0.4), array(1, 0, 1, 0)) == 0.625


def test_auc_of_one_class_is_nan() -> None:
    assert math.isnan(auc(array(0.1, 0.2), array(1, 1)))
    assert math.isnan(auc(array(), array()))


def test_pair_accuracy_by_hand() -> None:
    # p: 0.9 > 0.1 won. q: 0.2 < 0.3 lost, 0.3 = 0.3 half. r has no wrong one. Across prompts nothing counts.
    scores = array(0.9, 0.2, 0.1, 0.3, 0.3, 5.0)
    labels = array(1, 1, 0, 0, 1, 1)
    groups = ["p", "q", "p", "q", "q", "r"]
    assert pair_accuracy(scores, labels, groups) == pytest.approx(1.5 / 3)


def test_pair_accuracy_without_pairs_is_nan() -> None:
    assert math.isnan(pair_accuracy(array(1, 2), array(1, 0), ["p", "q"]))
    assert math.isnan(pair_accuracy(array(), array(), []))


def test_ranking_equals_the_slow_loop() -> None:
    rng = np.random.default_rng(7)
    scores = rng.integers(0, 6, 120).astype(np.float64)  # few values, so many ties
    labels = rng.integers(0, 2, 120).astype(np.float64)
    groups = [f"p{index}" for index in rng.integers(0, 20, 120)]
    won, count = slow_pairs(scores, labels, ["all"] * 120)
    assert auc(scores, labels) == pytest.approx(won / count)
    won, count = slow_pairs(scores, labels, groups)
    assert pair_accuracy(scores, labels, groups) == pytest.approx(won / count)


def test_calibration_error_by_hand() -> None:
    # (0, 0.5]: 0.1, 0.5, one right: |0.5 - 0.3| * 2/4. (0.5, 1]: 0.9, 1.0, one right: |0.5 - 0.95| * 2/4.
    error = expected_calibration_error(array(0.1, 0.5, 0.9, 1.0), array(0, 1, 1, 0), num_bins=2)
    assert error == pytest.approx(0.1 + 0.225)


def test_calibration_error_has_closed_upper_edges_and_takes_zero() -> None:
    # 0 and 0.5 share the first of two bins: mean 0.25, half right.
    assert expected_calibration_error(array(0.0, 0.5), array(0, 1), num_bins=2) == pytest.approx(0.25)
    assert math.isnan(expected_calibration_error(array(), array()))


def test_calibration_error_equals_the_slow_loop() -> None:
    rng = np.random.default_rng(3)
    probabilities = rng.random(200)
    labels = (rng.random(200) < probabilities).astype(np.float64)
    total = 0.0
    for low in range(10):
        rows = [i for i in range(200) if low / 10 < probabilities[i] <= (low + 1) / 10]
        if rows:
            observed = sum(labels[i] for i in rows) / len(rows)
            predicted = sum(probabilities[i] for i in rows) / len(rows)
            total += len(rows) / 200 * abs(observed - predicted)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(total)


def test_correlation_by_hand() -> None:
    # Deviations (-1, 0, 1) and (-1, 1, 0): 1 / sqrt(2 * 2).
    assert correlation(array(1, 2, 3), array(1, 3, 2)) == pytest.approx(0.5)
    assert correlation(array(1, 2, 3), array(-2, -4, -6)) == pytest.approx(-1.0)


def test_correlation_with_a_constant_is_nan() -> None:
    assert math.isnan(correlation(array(1, 2), array(3, 3)))
    assert math.isnan(correlation(array(1), array(3)))


def test_reliability_bins_hold_what_the_calibration_error_adds_up() -> None:
    rng = np.random.default_rng(9)
    probabilities = rng.random(300)
    labels = (rng.random(300) < probabilities**2).astype(np.float64)
    bins = reliability(probabilities, labels)
    assert [item.low for item in bins] == pytest.approx([n / 10 for n in range(10)])
    assert sum(item.count for item in bins) == 300
    total = sum(
        item.count / 300 * abs((item.observed or 0) - (item.predicted or 0)) for item in bins if item.count
    )
    assert total == pytest.approx(expected_calibration_error(probabilities, labels))


def test_reliability_by_hand() -> None:
    low, high = reliability(array(0.1, 0.3, 0.5), array(0, 1, 1), num_bins=2)
    assert [low.count, low.predicted, low.observed] == pytest.approx([3, 0.3, 2 / 3])
    assert (high.count, high.predicted, high.observed) == (0, None, None)
    assert [item.count for item in reliability(array(), array(), num_bins=2)] == [0, 0]


def test_correlation_within_groups_ignores_what_lies_between_them() -> None:
    # Within each group b falls where a rises; between groups both rise.
    a, b = array(1, 2, 11, 12, 50), array(2, 1, 12, 11, 90)
    groups = np.array([0, 0, 1, 1, 2])
    assert correlation(a, b) > 0.9
    assert within_correlation(a, b, groups) == pytest.approx(-1.0)


def test_correlation_within_groups_without_variation_is_nan() -> None:
    groups = np.array([0, 0, 0, 1])
    assert math.isnan(within_correlation(array(0.1, 0.1, 0.1, 0.7), array(1, 2, 3, 4), groups))
    assert math.isnan(within_correlation(array(1, 2), array(1, 2), np.array([0, 1])))
    assert math.isnan(within_correlation(array(), array(), np.array([], dtype=np.int64)))
