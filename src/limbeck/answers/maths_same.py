"""When two `math` answers in their normal form are the same.

Plain numbers are compared here, exactly, and lists part by part; so what is left for algebra is seldom and
small, and math-verify's readings of words (products of letters) and of points (intervals) never count.
"""

import re
from collections.abc import Callable
from fractions import Fraction

from limbeck.answers.maths_form import is_words

Same = Callable[[str, str], bool]
PLAIN = re.compile(r"(-?\d{1,60})(?:\.(\d{1,60})|/(\d{1,60}))?(%?)", re.ASCII)
ROUNDED_PLACES = 6
"""A decimal of so many places may stand for a fraction: 0.333333 for 1/3, as in math-verify."""
ORDERED = {"(": ")", "[": "]"}


def same(left: str, right: str, algebra: Same) -> bool:
    """Whether two normal forms are the same answer; symmetric."""
    if left == right:
        return True
    one, other = _number(left), _number(right)
    if one is not None and other is not None:
        return one == other or _is_rounded(left, right, one, other)
    if is_words(left) or is_words(right):
        return False
    if left.endswith("%") or right.endswith("%"):
        # 50% is not 50; algebra would say that it may be.
        both = left.endswith("%") and right.endswith("%")
        return both and same(left[:-1], right[:-1], algebra)
    one_list, other_list = _parts(left), _parts(right)
    if one_list and other_list:
        return _same_lists(*one_list, *other_list, algebra)
    if one_list or other_list:
        return bool(re.search(r"[<>]|\\(?:le|ge|in|cup)(?![A-Za-z])", left + right)) and algebra(left, right)
    return algebra(left, right)


def _number(text: str) -> Fraction | None:
    """The value of a plain number, fraction or percentage."""
    match = PLAIN.fullmatch(text)
    if match is None or (match[3] and int(match[3]) == 0):
        return None
    value = Fraction(f"{match[1]}.{match[2]}") if match[2] else Fraction(int(match[1]), int(match[3] or 1))
    return value / 100 if match[4] else value


def _is_rounded(left: str, right: str, one: Fraction, other: Fraction) -> bool:
    """Whether one is a decimal, the other a fraction, and their first decimal places are the same."""
    if ("/" in left) == ("/" in right):
        return False
    decimal = right if "/" in left else left
    places = len(decimal.rstrip("%").partition(".")[2])
    return places >= ROUNDED_PLACES and abs(one - other) < Fraction(1, 10**places)


def _parts(text: str) -> tuple[str, list[str]] | None:
    """The bracket of a list and its parts; without a comma outside of inner brackets it is none."""
    kind, inner = "", text
    if text.startswith("\\{") and text.endswith("\\}"):
        inner = text[2:-2]
    elif text[:1] in ORDERED and text[-1:] in ORDERED.values():
        kind, inner = text[0] + text[-1], text[1:-1]
    depth, parts = 0, [""]
    for char in inner:
        depth += (char in "([{") - (char in ")]}")
        if depth < 0:
            return None  # (1,2)U(3,4)
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    if len(parts) > 1:
        return kind, parts
    return ("", parts) if text.startswith("\\{") else None


def _same_lists(kind: str, parts: list[str], other_kind: str, others: list[str], algebra: Same) -> bool:
    """Points and intervals part by part; sets in any order."""
    if kind != other_kind or len(parts) != len(others):
        return False
    if kind:
        return all(same(one, other, algebra) for one, other in zip(parts, others, strict=True))
    left_over = list(others)
    for one in parts:
        found = next((place for place, other in enumerate(left_over) if same(one, other, algebra)), None)
        if found is None:
            return False
        left_over.pop(found)
    return True
