"""Where the answer of a `math` completion stands.

In the last box; else after the last `####`; else after the last "the answer is"; else, after the last equals
sign, the one number of what begins with "so"; else after that sign; else it is the last number. What was cut
off within one of these has no answer.
"""

import re

from limbeck.answers.maths_form import FUNCTIONS, NUMBER, SIGNS, WORD, is_words, normal_form
from limbeck.answers.places import after_answer, after_hashes, is_unknown, last_box, refuses

NUMBERS = re.compile(
    r"(?<![\w.,)}^_])-?\s?(?:\\?[$\u20ac\u00a3]\s?)?-?"
    r"(?:\d+\s+\d+/\d+|\d{1,3}(?:(?:,|\{,\})\d{3})+(?:\.\d+)?(?![\d,])|\d+(?:\.\d+)?(?:/\d+)?|\.\d+)"
    r"(?:\s*(?:\\?%|per ?cent\b)|\s+(?:thousand|million|billion|trillion)\b)?(?![\d])",
    re.IGNORECASE,
)
FRACTIONS = re.compile(r"-?\\[dt]?frac\{-?\d+\}\{\d+\}")
LIST_MARK = re.compile(r"^\s*(?:step )?\d+[.):]\s", re.MULTILINE | re.IGNORECASE)
FORMULA = r"\$\$?(?P<a>(?:\\.|[^$\\])+)\$\$?|\\\((?P<b>.+?)\\\)|\\\[(?P<c>.+?)\\\]"
MATHS = re.compile(FORMULA, re.DOTALL)
NEXT = re.compile(rf"\s*(?:,|,?\s*\band\b|,?\s*\bor\b)\s*(?={FORMULA})", re.DOTALL)
AFTER = re.compile(r"\s*(\\?%|per ?cent\b|thousand\b|million\b|billion\b)")
EQUALS = re.compile(r"(?<![<>!:=])=(?![=>])|\u2248|\\approx(?![A-Za-z])")
SENTENCE_END = re.compile(
    r"\n|[.!?;](?=[\s*\"')]|$)|,?\s+(?:because|since|which|so|as|when|where|while|after|but|if|given)\b"
    r"|\s\((?=[a-z ]{3,})|\.?\*\*(?=\s)"
)
CONCLUSION = re.compile(
    r"(?:[.!?]\s+|\n\s*)(?:so|thus|hence|therefore|altogether|in total|in conclusion|finally)\b(.*)\Z",
    re.IGNORECASE | re.DOTALL,
)
TALK = re.compile(
    r"(?:in)?correct\b.*|right|wrong|not\b.*|reasonable|in\b.*|given by.*|(?:as )?follows?.*|found.*"
)
CLOCK = re.compile(r"\d{1,2}:\d\d\b")
MAX_WORDS = 4
"""A phrase of more words, without any number, is talk."""


def find(text: str) -> str | None:
    """The answer as it stands in the text, but for signs that LaTeX has commands for."""
    text = text.translate(SIGNS)
    for place in (last_box(text), after_hashes(text)):
        if place is not None:
            return None if not place or is_unknown(place) or refuses(place) else place
    for rest in after_answer(text):
        found = _value(rest)
        if found is None and not rest.strip(" *:_$\\([{\n"):
            return None  # cut off
        if found is not None:
            return None if is_unknown(found) else found
    if refuses(text):
        return None
    return _after_equals(text) if EQUALS.search(text) else _last_number(text)


def _value(rest: str) -> str | None:
    """What a text that follows "the answer is" begins with: formulas, a number, or a few words."""
    rest = rest.lstrip(" *:_\n")
    if (match := MATHS.match(rest)) and not _is_prose(_inside(match)):
        parts = [_last_side(_inside(match))]
        while (comma := NEXT.match(rest, match.end())) and (match := MATHS.match(rest, comma.end())):
            parts.append(_last_side(_inside(match)))
        end = match.end() if match else len(rest)
        unit = AFTER.match(rest, end) if len(parts) == 1 else None
        return ", ".join(parts) + (f" {unit[1]}" if unit else "")
    return _phrase(_last_side(SENTENCE_END.split(rest, maxsplit=1)[0]))


def _phrase(phrase: str) -> str | None:
    """The answer in a part of a sentence."""
    phrase = phrase.strip(" *_\"'`:,")
    if not phrase or TALK.fullmatch(phrase.lower()):
        return None
    if is_unknown(phrase) or refuses(phrase):
        return "?"
    if match := MATHS.search(phrase):
        inside = _inside(match)
        if not _is_prose(inside):
            return _last_side(inside)
    if not is_words(phrase):
        return phrase if re.search(r"[\dA-Za-z]", phrase) else None
    if CLOCK.match(phrase):
        return phrase
    if re.match(rf"\\?[$\u20ac\u00a3]?\s?{NUMBER}[\d,./\s{{}}]*(?:[A-Za-z%\\^]|$)", phrase):
        number = NUMBERS.match(phrase)
        if number is None or not is_words(normal_form(phrase, case_sensitive=True)):
            return phrase  # with its unit
        return number[0]
    if found := FRACTIONS.search(phrase) or NUMBERS.search(phrase):
        return found[0]
    return phrase if len(phrase.split()) <= MAX_WORDS else None


def _after_equals(text: str) -> str | None:
    """What follows the last equals sign that a value follows; None when the text ends with one."""
    ends = [match.end() for match in EQUALS.finditer(text)]
    if not text[ends[-1] :].strip(" $\\([{\n*"):
        return None
    concluded = CONCLUSION.search(text[ends[-1] :])
    numbers = [*NUMBERS.finditer(concluded[1])] if concluded else []
    if len(numbers) == 1:
        return numbers[0][0]  # "x = 3 or x = -2. So their sum is 1."
    for end in reversed(ends):
        rest = text[end:].lstrip(" *&{")
        line = re.split(
            r"\n|\$|\\\)|\\\]|\\\\|[.;!?](?=[\s*)]|$)|, (?!\d)", rest.lstrip("$ ") or " ", maxsplit=1
        )[0]
        found = _phrase(line)
        if found is not None and (re.search(r"\d", found) or not is_words(found)) and found != "?":
            return found
    return _last_number(text)


def _last_number(text: str) -> str | None:
    """The last number that marks no point of a list."""
    text = LIST_MARK.sub(lambda match: " " * len(match[0]), text)
    found = [*NUMBERS.finditer(text), *FRACTIONS.finditer(text)]
    return max(found, key=lambda match: match.end())[0] if found else None


def _inside(match: re.Match[str]) -> str:
    """What stands between the signs of a formula."""
    return match["a"] or match["b"] or match["c"]


def _last_side(formula: str) -> str:
    """The right side of a chain of equations; a system of them stays whole."""
    sides = EQUALS.split(formula)
    return formula if "," in formula and len(sides) > 2 else sides[-1].strip()


def _is_prose(formula: str) -> bool:
    """Whether two currency signs were taken for those of a formula: "$5 and then $7"."""
    bare = re.sub(r"\\[A-Za-z]+\s*\{[^{}]*\}|\\[A-Za-z]+", "", formula)
    return any(
        word.lower() not in FUNCTIONS - {"or", "and", "to", "if", "for"} for word in WORD.findall(bare)
    )
