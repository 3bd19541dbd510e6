"""The final answer of a completion: how it is found and when two answers are the same."""

import re

from limbeck.config import TaskConfig


def extract_answer(text: str, task: TaskConfig) -> str | None:
    """The answer a completion ends with: group 1 of the last match of `task.answer_pattern`.

    Returns:
        The answer in its normal form, or None when the completion gives none.
    """
    found = None
    for match in re.finditer(task.answer_pattern, text):
        found = match.group(1)
    return normalise(found, task) if found is not None else None


def normalise(answer: str, task: TaskConfig) -> str:
    """The form in which answers are compared: single spaces, no thousands commas or closing dot."""
    answer = " ".join(answer.split()).rstrip(".")
    answer = re.sub(r"(?<=\d),(?=\d{3}\b)", "", answer)
    return answer if task.case_sensitive else answer.lower()
