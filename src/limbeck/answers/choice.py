"""Answers of the kind `choice`: one letter."""

import re
import string
from collections.abc import Sequence

from limbeck.answers.places import after_answer, after_hashes, last_box, refuses

LETTERS = string.ascii_uppercase
# "A" and "I" are words too: "the answer is A good teacher", "the answer is I think B".
NO_WORD = r"(?!(?<=\b[AI])[ ]+(?!(?:because|since|as|and|or|which|for|but|with|based|in|due)\b)[a-z])"
HEAD = re.compile(
    r"[\s*_$(\[{\"'`\\]*(?:(?:text|mathrm|mathbf|textbf)\{)?[\s*_(\[]*"
    r"(?:(?:option|choice|letter|answer)s?[\s*_:(\[]+)?"
    rf"(?P<letter>[A-Z])(?![A-Za-z0-9'\u2019]|-[a-z]){NO_WORD}",
    re.IGNORECASE,
)
CHOSEN = re.compile(
    r"(?:\b(?i:choose|chose|select|pick|go(?:ing)? with|opt for|correct (?:option|choice|letter)(?: is|:))"
    r"[\s*_:]*(?:the )?(?:option|choice|answer)?[\s*_:(\[]*(?P<after>[A-Z])(?![A-Za-z0-9'\u2019])(?! [a-z]+ )"
    r"|(?<![A-Za-z0-9])\(?(?P<before>[A-Z])[)*_]* (?:is|must be|would be) (?:the )?"
    r"(?:correct|right|best|true)\b)"
)
ALSO = re.compile(
    r"[\s*_)\].,:]*?(?:,|/|&|\b(?:or|and|nor)\b)[\s*_]*(?:option |choice )?[*_(\[]*[B-Z](?![A-Za-z0-9'])"
)
LONE = re.compile(r"^[\s*_$(\[\"'`]*([A-Z])[\s*_$)\].:\"'`]*$", re.MULTILINE)
OPTION = re.compile(r"^[\s*_>-]*(?:[(\[]([A-Z])[)\]]|([A-Z])[.):])[*_]*\s", re.MULTILINE)
BRACKETED = re.compile(r"\(([A-Z])\)|\*\*\(?([A-Z])[).]?\*\*")


def find(text: str) -> str | None:
    """The letter that a completion settles on; None when it names several at once."""
    for place in (last_box(text), after_hashes(text)):
        if place is not None:
            return _only(place)
    for rest in after_answer(text):
        if HEAD.match(rest):
            return _only(rest)
    chosen = [match["after"] or match["before"] for match in CHOSEN.finditer(text)]
    if chosen:
        return chosen[-1]
    if lone := LONE.findall(text):
        return str(lone[-1])
    if refuses(text):
        return None
    options = {first or second for first, second in OPTION.findall(text)}
    named = [first or second for first, second in BRACKETED.findall(text)]
    if len(options) > 1:
        return None  # options that are only listed settle nothing
    return named[-1] if named else next(iter(options), None)


def normal_form(answer: str) -> str:
    """The letter in upper case; an answer that has none stays as it is."""
    match = HEAD.match(answer)
    return match["letter"].upper() if match else answer.strip()


def letter_of(answer: str, options: Sequence[str]) -> int | None:
    """Which of the options a gold answer means, from 0: by its text, its letter, or its index from 0."""
    wanted = " ".join(answer.split())
    if wanted in options:
        return options.index(wanted)
    if re.fullmatch(r"\(?[A-Za-z][).]?", wanted):
        number = LETTERS.index(wanted.strip("().").upper())
    elif re.fullmatch(r"\d{1,2}(\.0)?", wanted, re.ASCII):
        number = int(wanted.removesuffix(".0"))
    else:
        return None
    return number if number < len(options) else None


def with_options(prompt: str, options: Sequence[str]) -> str:
    """A prompt with a line for each option below it: `A. Paris`."""
    lines = (f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    return "\n".join((prompt, *lines))


def _only(place: str) -> str | None:
    """The letter at the head of a text, unless others are named beside it."""
    match = HEAD.match(place)
    if match is None or ALSO.match(place, match.end()):
        return None
    return match["letter"].upper()
