"""Fidelity to the teacher, from answers made by hand."""

import math
from operator import eq

import numpy as np
import pytest

from limbeck.report.answers import Answer, Answers
from limbeck.report.fidelity import error_consistency, fidelity
from limbeck.report.model import Fidelity


def answer(text: str | None, gold: str | None) -> Answer:
    return Answer(text, None if gold is None else text == gold, 5, False)


def of(student: list[str | None], teacher: list[str | None], gold: str | None = "7") -> Fidelity:
    """Greedy answers of both to one prompt each."""
    answers: Answers = {
        (name, "greedy"): {f"p{i}": (answer(text, gold),) for i, text in enumerate(texts)}
        for name, texts in (("teacher", teacher), ("student", student))
    }
    (row,) = fidelity(answers, eq, 200, 1)
    return row


def test_agreement_counts_the_teachers_answers_right_or_wrong() -> None:
    row = of(["7", "8", "9", "7", None], ["7", "8", "8", "8", None])
    assert (row.name, row.decoding, row.n) == ("student", "greedy", 5)
    assert row.agreement == pytest.approx(2 / 5)  # two missing answers are no agreement
    assert row.interval is not None
    assert row.interval[0] < 2 / 5 < row.interval[1]
    # The teacher is wrong on four; its 8 is copied once.
    assert (row.num_teacher_wrong, row.agreement_teacher_wrong) == (4, 0.25)


def test_without_gold_agreement_is_measured_and_what_needs_gold_is_null() -> None:
    row = of(["7", "8"], ["7", "9"], gold=None)
    assert row.agreement == 0.5
    assert (row.num_teacher_wrong, row.agreement_teacher_wrong, row.error_consistency) == (0, None, None)
    assert row.interval_teacher_wrong is None


def test_ties_agree_by_their_chance() -> None:
    tied = (answer("8", "7"), answer("9", "7"))
    answers: Answers = {
        ("teacher", "majority"): {"p": tied},
        ("a", "majority"): {"p": tied},
        ("b", "majority"): {"p": (answer("8", "7"),)},
        ("c", "majority"): {"p": (answer("7", "7"),)},
    }
    assert {row.name: row.agreement for row in fidelity(answers, eq, 50, 1)} == {"a": 0.5, "b": 0.5, "c": 0.0}


def test_formulas_that_equal_the_teachers_agree() -> None:
    answers: Answers = {("teacher", "greedy"): {"p": (answer("0.5", "7"),)}}
    answers = {**answers, ("s", "greedy"): {"p": (answer("1/2", "7"),)}}
    assert fidelity(answers, eq, 50, 1)[0].agreement == 0.0
    assert fidelity(answers, lambda left, right: {left, right} == {"0.5", "1/2"}, 50, 1)[0].agreement == 1.0


def test_without_a_teacher_there_is_no_fidelity_and_samples_have_none() -> None:
    given = {"p": (answer("7", "7"),)}
    assert fidelity({("a", "greedy"): given}, eq, 50, 1) == ()
    assert fidelity({("a", "sampled"): given, ("teacher", "sampled"): given}, eq, 50, 1) == ()


@pytest.mark.parametrize(
    ("a", "b", "kappa"),
    [
        ([1, 1, 0, 0], [1, 1, 0, 0], 1.0),
        ([1, 1, 0, 0], [1, 0, 1, 0], 0.0),  # as independent models of this accuracy
        ([1, 1, 0, 0], [0, 0, 1, 1], -1.0),
        ([1, 1, 1, 0], [1, 1, 0, 0], 0.5),  # observed 3/4, expected 1/2
    ],
)
def test_error_consistency_is_agreement_beyond_the_accuracies(
    a: list[int], b: list[int], kappa: float
) -> None:
    assert error_consistency(np.array(a, float), np.array(b, float)) == pytest.approx(kappa)


def test_error_consistency_of_models_that_are_always_right_is_not_defined() -> None:
    assert math.isnan(error_consistency(np.ones(3), np.ones(3)))
    assert math.isnan(error_consistency(np.ones(0), np.ones(0)))
