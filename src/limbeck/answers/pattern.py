"""Answers of the kind `pattern`: a regular expression of the user's finds them."""

import re


def find(text: str, answer_pattern: str) -> str | None:
    """Group 1 of the last match."""
    found = None
    for match in re.finditer(answer_pattern, text):
        found = match.group(1)
    return found


def normal_form(answer: str, case_sensitive: bool) -> str:
    """Single spaces, no thousands commas or closing dot."""
    answer = " ".join(answer.split()).rstrip(".")
    answer = re.sub(r"(?<=\d),(?=\d{3}\b)", "", answer)
    return answer if case_sensitive else answer.lower()
