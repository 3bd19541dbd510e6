"""Answers in completions."""

import pytest

from limbeck.answers import extract_answer
from limbeck.config import TaskConfig


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("48 / 2 = 24. She sold 24. #### 1,072", "1072"),
        ("The answer is 42.", "42"),
        ("the answer is: -3.5", "-3.5"),
        ("x = 3, then y = 7", "7"),
        ("= $12", "12"),
        ("I do not know", None),
        ("", None),
    ],
)
def test_the_last_match_is_the_answer(text: str, expected: str | None) -> None:
    assert extract_answer(text, TaskConfig()) == expected


def test_case_counts_when_asked() -> None:
    pattern = r"= (\w)"
    assert extract_answer("= A", TaskConfig(answer_pattern=pattern)) == "a"
    assert extract_answer("= A", TaskConfig(answer_pattern=pattern, case_sensitive=True)) == "A"
