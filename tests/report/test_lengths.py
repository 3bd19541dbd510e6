"""Tokens and cost of an answer."""

import pytest

from limbeck.report.answers import Answer, Answers
from limbeck.report.lengths import answer_lengths

ANSWERS: Answers = {
    ("teacher", "sampled"): {
        "p": (Answer("7", True, 10, False), Answer("8", False, 30, True)),
        "q": (Answer("7", True, 40, False), Answer("7", True, 40, False)),
        "r": (Answer("7", True, 90, False),),
        "too long": (Answer(None, False, None, False),),
    },
    ("student", "greedy"): {"too long": (Answer(None, False, None, False),)},
}


def test_a_prompt_counts_with_the_mean_over_its_answers_and_one_that_was_not_asked_not_at_all() -> None:
    teacher, student = answer_lengths(ANSWERS, {}, 200, 1)
    assert (teacher.n, teacher.mean_tokens, teacher.median_tokens) == (3, 50.0, 40.0)
    assert teacher.interval is not None
    assert 20.0 <= teacher.interval[0] < 50.0 < teacher.interval[1] <= 90.0
    assert teacher.cut == pytest.approx(1 / 6)
    assert (student.n, student.mean_tokens, student.median_tokens, student.cut) == (0, None, None, None)


def test_cost_is_known_where_a_price_is() -> None:
    teacher, student = answer_lengths(ANSWERS, {"teacher": 8.0, "student": 1.0}, 50, 1)
    assert teacher.cost == pytest.approx(8.0 * 50 / 1_000_000)
    assert student.cost is None  # it never answered
    assert answer_lengths(ANSWERS, {"student": 1.0}, 50, 1)[0].cost is None
