"""Texts as words: what is a word in each script, and which of them are figures."""

import numpy as np
import pytest

from limbeck.wording import TOKEN, runs, wording


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Tom has 1,000.50 apples, doesn't he?", ["Tom", "has", "1,000.50", "apples", "doesn't", "he"]),
        ("twenty-five well-known e-mails", ["twenty", "five", "well", "known", "e", "mails"]),
        ("5 - 3, 5-3, a - b, x -(y)", ["5", "-", "3", "5", "-", "3", "a", "-", "b", "x", "-", "(", "y", ")"]),
        ("a 3-legged stool — no, two", ["a", "3", "legged", "stool", "no", "two"]),
        ("10² is not 102", ["10", "²", "is", "not", "102"]),
        ("at 3:45 or 3/4", ["at", "3:45", "or", "3/4"]),
        ("日本語です。", ["日", "本", "語", "で", "す"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("ดีมาก", ["ดี", "ม", "า", "ก"]),
        ("«Сколько яблок?»", ["Сколько", "яблок"]),
        ("zero\u200bwidth", ["zero", "width"]),
        (" \n ...?! ", []),
        ("5! or n! or (n)! but no!", ["5", "!", "or", "n", "!", "or", "(", "n", ")", "!", "but", "no"]),
    ],
)
def test_words_of_every_script_are_found(text: str, tokens: list[str]) -> None:
    assert TOKEN.findall(text) == tokens


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 12 + 3?", "what is 12 +  3 ?"),
        ("a well-known man", "a well known man"),
        ("She bought twelve eggs.", "He sold twelve hens"),
        ("it's fine", "they're good"),
        ("Find x in a Box", "FIND X IN A BOX"),
        ("x \u2212 3", "x - 3"),
        ("文字が三つあります", "人々が三つおります"),
    ],
)
def test_texts_with_the_same_figures(one: str, other: str) -> None:
    assert wording(one).figures == wording(other).figures


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("12 apples", "13 apples"),
        ("12 apples and 3 pears", "3 apples and 12 pears"),
        ("two apples", "three apples"),
        ("half an apple", "an apple"),
        ("thirteen apples", "fourteen apples"),
        ("What is 3 + 4?", "What is 3 - 4?"),
        ("(2 + 3) * 4", "2 + (3 * 4)"),
        ("10²", "102"),
        ("Find x.", "Find y."),
        ("costs 5 €", "costs 5 $"),
        ("3.5 km", "35 km"),
        ("三つ", "四つ"),
        ("१२", "१३"),
        ("3 < 4", "3 > 4"),
        ("5!", "5"),
    ],
)
def test_texts_with_other_figures(one: str, other: str) -> None:
    assert wording(one).figures != wording(other).figures


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Janet has 3 ducks.", "Janet  has 3 ducks", True),
        ("“Janet” has 3 ducks", "Janet has 3 ducks!", True),
        ("Polish or polish", "polish or Polish", False),
        ("the cat sat", "sat the cat", False),
        ("cafe\u0301", "caf\u00e9", True),
    ],
)
def test_the_same_words_have_the_same_key(one: str, other: str, same: bool) -> None:
    assert (wording(one).key == wording(other).key) is same


def test_numbers_in_digits_are_counted() -> None:
    assert wording("12 apples, 3.5 kg, two pears, x2 and 1/2").num_numbers == 3


def test_hashes_are_the_same_in_every_process() -> None:
    """Else the same data would be cleaned in two ways."""
    assert wording("Tom has 12 apples").key == 4254556492573824895
    assert wording("Tom has 12 apples").figures == 2934044895445022949


def test_runs_are_found_wherever_they_stand() -> None:
    words = wording("one can see the whole sentence here").words_T
    inside = runs(wording("see the whole").words_T, 3)
    assert len(inside) == 1
    assert inside[0] in runs(words, 3)
    assert inside[0] not in runs(wording("whole the see").words_T, 3)
    assert len(runs(words, 3)) == len(words) - 2
    assert len(runs(words, 8)) == 0
    assert len(runs(wording("la la la la la").words_T, 3)) == 1


def test_a_run_is_known_by_all_its_words() -> None:
    """A run that differs in one word anywhere has another hash."""
    words = [f"word{n}" for n in range(13)]
    whole = runs(wording(" ".join(words)).words_T, 13)
    for place in range(13):
        changed = [*words[:place], "other", *words[place + 1 :]]
        assert not np.isin(whole, runs(wording(" ".join(changed)).words_T, 13)).any()


def test_endless_words_and_numbers_are_read() -> None:
    assert len(wording("x" * 1000).words_T) == 16
    assert wording("9" * 1000).figures != wording("9" * 999).figures
    assert len(wording("a" + "\u0301" * 1000).words_T) == 1
