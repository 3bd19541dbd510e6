"""Answers of the kind `text`: a few words, compared without case, articles and punctuation."""

import re
import unicodedata

from limbeck.answers.places import after_answer, after_hashes, is_unknown, last_box, refuses

MAX_CHARS = 200
"""A completion of one line is its own answer up to this length."""
SENTENCE_END = re.compile(
    r"(?<![A-Z])(?<!\b[A-Z][a-z])[.!?](?=[\s*_\"]|$)|\n"
)  # not in "U.S. Grant", "Dr. No"
ARTICLES = re.compile(r"\b(?:a|an|the)\b", re.IGNORECASE)
DASHES = re.compile("[\u2010-\u2015\u2212]")
SIGNS = re.compile(
    r"(?<=\d)[.,:/](?=\d)|(?<![\w.])[-.](?=\d)"
    r"|[%\u00b0]|[$\u20ac\u00a3+&](?=\w)|(?<=[\w+])[+#]"
)
"""Punctuation that means something: in numbers, before and after them, in C++."""


def find(text: str) -> str | None:
    """The words that a completion gives for its answer."""
    for place in (last_box(text), after_hashes(text)):
        if place is not None:
            return _kept(re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}", r"\1", place))
    for rest in after_answer(text):
        return _kept(SENTENCE_END.split(rest.strip(), maxsplit=1)[0])
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) == 1 and len(lines[0]) <= MAX_CHARS and not refuses(text):
        return _kept(lines[0])
    return None


def normal_form(answer: str, case_sensitive: bool) -> str:
    """Words with single spaces between them, as SQuAD's evaluation compares them (arXiv 1606.05250).

    Other than there, hyphens part words, and signs of numbers stay: -5 is not 5, 3.5 is not 35.
    """
    text = DASHES.sub("-", unicodedata.normalize("NFKC", answer)).replace("\u2019", "'")
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    kept = {match.start() for match in SIGNS.finditer(text)}
    text = "".join(
        char
        if place in kept or not unicodedata.category(char).startswith(("P", "S"))
        else " "
        if char in "-/_"
        else ""
        for place, char in enumerate(text)
    )
    bare = " ".join(ARTICLES.sub(" ", text).split())
    bare = bare or " ".join(text.split())  # "A" may be all there is
    return bare if case_sensitive else bare.casefold()


def _kept(answer: str) -> str | None:
    """An answer, unless it says that there is none."""
    answer = answer.strip()
    return None if not answer or is_unknown(answer) or refuses(answer) else answer
