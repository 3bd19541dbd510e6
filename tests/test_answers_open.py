"""The kind `open`: the whole completion is the answer, and no other one is the same."""

import pytest

from limbeck.answers import extract_answer, same
from limbeck.config import TaskConfig

TASK = TaskConfig(kind="open")


@pytest.mark.parametrize(
    ("text", "finished", "expected"),
    [
        ("A haiku\nabout rain", True, "A haiku\nabout rain"),
        ("  spaces around \n", True, "spaces around"),
        ("The answer is 4", True, "The answer is 4"),
        ("Only half of what it wan", False, None),
        ("", True, None),
        (" \n\t", True, None),
    ],
)
def test_an_answer_is_the_whole_text_of_a_completion_that_ended_by_itself(
    text: str, finished: bool, expected: str | None
) -> None:
    assert extract_answer(text, TASK, finished=finished) == expected


def test_thoughts_are_no_part_of_the_answer() -> None:
    task = TaskConfig(kind="open", strip_thinking=True)
    assert extract_answer("<think>Hm.</think>\nRain falls.", task) == "Rain falls."


def test_other_kinds_find_an_answer_before_the_cut() -> None:
    assert extract_answer("#### 4 and", TaskConfig(), finished=False) == "4"


def test_texts_that_differ_at_all_are_two_answers() -> None:
    assert same("rain", "rain", TASK, lambda left, right: True)
    assert not same("rain", "Rain", TASK, lambda left, right: True)
