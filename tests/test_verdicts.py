"""Verdict words in tokens and texts of models whose tokenizer nobody knows."""

import math

import pytest

from limbeck.verdicts import probability, word_of

YES = ("yes", "no")
RIGHT = ("correct", "incorrect")


@pytest.mark.parametrize(
    ("text", "verdict", "word"),
    [
        ("yes", YES, 0),
        (" Yes", YES, 0),
        ("▁YES", YES, 0),
        ("no.", YES, 1),
        ("**No**, as 3 is odd", YES, 1),
        ("not", YES, None),
        ("nobody", YES, None),
        ("maybe", YES, None),
        ("", YES, None),
        (" ", YES, None),
        ("…", YES, None),
        ("cor", RIGHT, 0),
        ("in", RIGHT, 1),
        ("correct", ("correct", "correctly"), None),  # it may go on
        ("correctly", ("correct", "correctly"), 1),
        ("ja", ("ja", "nein"), 0),
        ("да", ("да", "нет"), 0),
    ],
)
def test_a_text_stands_for_a_word(text: str, verdict: tuple[str, str], word: int | None) -> None:
    assert word_of(text, verdict) == word


def test_the_forms_of_a_word_are_added_up_and_all_else_is_left_out() -> None:
    tokens = [("yes", math.log(0.3)), ("Yes", math.log(0.1)), (" no", math.log(0.2)), ("I", math.log(0.4))]
    assert probability(tokens, YES) == pytest.approx(0.4 / 0.6)
    assert probability(tokens, ("no", "yes")) == pytest.approx(0.2 / 0.6)


def test_a_beginning_counts_where_no_whole_word_is_among_the_tokens() -> None:
    letters = [("n", math.log(0.5)), ("yes", math.log(0.2)), ("no", math.log(0.1))]
    assert probability(letters, YES) == pytest.approx(0.2 / 0.3)
    pieces = [("cor", math.log(0.3)), ("in", math.log(0.1)), ("The", math.log(0.5))]
    assert probability(pieces, RIGHT) == pytest.approx(0.3 / 0.4)


def test_one_word_alone_is_certain_and_none_is_no_verdict() -> None:
    assert probability([("yes", -9.0), ("I", -0.1)], YES) == 1.0
    assert probability([("I", -0.1)], YES) is None
    assert probability([], YES) is None
    assert probability([("yes", -9999.0)], YES) is None  # how servers write what has no probability
