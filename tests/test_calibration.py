"""Calibration of judgements: the fitted line, and that no completion is fitted on its own prompt."""

import numpy as np
import pytest
from scipy.special import expit, logit

from limbeck.calibration import (
    NUM_FOLDS,
    Floats,
    Line,
    calibrated,
    cross_fitted,
    fit,
    fold,
    from_metrics,
    to_metrics,
)
from limbeck.labels import calibrated_by_vote, peer_agreement
from limbeck.metrics import expected_calibration_error
from tests.test_labels import completion


def sure_judge(count: int, seed: int = 5) -> tuple[Floats, Floats]:
    """What a judge says who is three times as sure as he should be, and what is so."""
    random = np.random.default_rng(seed)
    truth = random.uniform(0.05, 0.95, count)
    return expit(3 * logit(truth) + 1), (random.random(count) < truth).astype(np.float64)


def crossed(said: Floats, agrees: list[bool | None], folds: list[int]) -> Floats | None:
    lines = cross_fitted(said, agrees, folds)
    return None if lines is None else calibrated(said, lines, folds)


def test_the_line_of_a_judge_who_is_too_sure_is_found() -> None:
    said, agrees = sure_judge(20_000)
    slope, offset = fit(logit(said), agrees > 0.5)
    assert slope == pytest.approx(1 / 3, abs=0.02)
    assert offset == pytest.approx(-1 / 3, abs=0.04)


@pytest.mark.parametrize(("agrees", "expected"), [(True, 11 / 12), (False, 1 / 12)])
def test_one_class_alone_gives_no_certainty(agrees: bool, expected: float) -> None:
    slope, offset = fit(np.zeros(10), np.full(10, agrees))
    assert expit(slope * 0 + offset) == pytest.approx(expected, abs=1e-3)


def test_a_judge_worse_than_chance_is_not_believed_the_other_way_round() -> None:
    said, agrees = sure_judge(5_000)
    slope, offset = fit(logit(said), agrees < 0.5)
    assert slope == 0.0
    assert expit(offset) == pytest.approx(1 - agrees.mean(), abs=0.01)


def test_calibration_lowers_the_error_and_keeps_the_ranking_within_a_part() -> None:
    said, agrees = sure_judge(5_000)
    folds = [number % NUM_FOLDS for number in range(len(said))]
    fitted = crossed(said, [bool(item) for item in agrees], folds)
    assert fitted is not None
    assert expected_calibration_error(fitted, agrees) < 0.03 < expected_calibration_error(said, agrees)
    order = np.argsort(said[0::NUM_FOLDS])
    assert (np.diff(fitted[0::NUM_FOLDS][order]) >= 0).all()


def test_what_a_part_says_of_itself_does_not_count() -> None:
    said, agrees = sure_judge(1_000)
    folds = [number % NUM_FOLDS for number in range(len(said))]
    votes: list[bool | None] = [bool(item) for item in agrees]
    other = [not vote if part == 0 else vote for vote, part in zip(votes, folds, strict=True)]
    before, after = crossed(said, votes, folds), crossed(said, other, folds)
    assert before is not None
    assert after is not None
    assert (before[0::NUM_FOLDS] == after[0::NUM_FOLDS]).all()
    assert (before[1::NUM_FOLDS] != after[1::NUM_FOLDS]).all()


def test_certain_verdicts_and_completions_without_a_vote_are_calibrated_too() -> None:
    said = np.array([0.0, 1.0] * 50)
    votes: list[bool | None] = [False, True, False, None] * 25
    fitted = crossed(said, votes, [number // 2 % NUM_FOLDS for number in range(100)])
    assert fitted is not None
    assert (fitted[1::2] > 0.8).all()
    assert (fitted[0::2] < 0.2).all()


def test_one_part_alone_cannot_be_calibrated() -> None:
    assert crossed(np.array([0.2, 0.8]), [True, False], [3, 3]) is None
    assert crossed(np.array([0.2, 0.8]), [None, None], [0, 1]) is None


def test_lines_come_back_from_the_metrics_of_the_labels_as_they_were() -> None:
    lines = tuple(Line(slope=1 + part / 10, offset=-part / 3) for part in range(NUM_FOLDS))
    assert from_metrics(to_metrics(lines)) == lines
    assert from_metrics({"label/coverage": 0.5}) == ()


@pytest.mark.parametrize(
    ("answers", "agreement"),
    [
        (["a", "a", "b"], [None, None, False]),  # a's others are a and b, which tie
        (["a", "a", "a", "b"], [True, True, True, False]),
        (["a", None, None], [None, False, False]),
        (["a", "b"], [False, False]),
        (["a"], [None]),
        ([], []),
    ],
)
def test_a_completion_has_no_vote_on_itself(answers: list[str | None], agreement: list[bool | None]) -> None:
    assert peer_agreement([completion(number, answer) for number, answer in enumerate(answers)]) == agreement


def test_a_prompt_is_calibrated_by_the_votes_of_other_prompts() -> None:
    """A judge who always says 0.9, and completions of which two thirds agree with the others."""
    prompts = [f"p{number}" for number in range(60)]
    assert len({fold(prompt_id) for prompt_id in prompts}) == NUM_FOLDS
    groups = {
        prompt_id: [completion(10 * n + k, answer) for k, answer in enumerate("aaaabb")]
        for n, prompt_id in enumerate(prompts)
    }
    said = {row.completion_id: 0.9 for rows in groups.values() for row in rows}
    fitted = calibrated_by_vote(groups, said)
    assert fitted is not None
    assert fitted.p_correct.keys() == said.keys()
    assert set(np.round(list(fitted.p_correct.values()), 2)) == {0.67}
