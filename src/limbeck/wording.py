"""A text as hashed words: what prompts are compared by, whatever their white space and punctuation.

Numbers and the signs of formulas decide a problem's answer, so they are marked as *figures*: "12 apples" and
"13 apples" are two questions. Scripts that put no space between words count by character.

T: words of one text.
"""

import re
import unicodedata
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

HashArray = NDArray[np.uint64]

UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese."""
MARKS = "".join(chr(code) for code in range(0x300, 0x10000) if unicodedata.category(chr(code))[0] == "M")
"""Vowel signs and accents: parts of a word that regular expressions do not count as letters."""
DASHES = "\\-\u2010-\u2015\u2212"
PLAIN = (
    rf"{DASHES}.,;:?!'\"`…·•‘’‚“”„‹›«»¿¡、。「」『』【】《》〈〉，；：？।॥！،؛؟"  # noqa: RUF001 - punctuation of all scripts
    "\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff"
)
"""Punctuation of sentences, and what nobody sees. All other signs belong to formulas, or may."""
TOKEN = re.compile(
    r"\d{1,64}(?:[.,:/]\d{1,64}){0,8}"
    rf"|(?=\w)[{UNSPACED}][{MARKS}]{{0,16}}"
    rf"|[^\W{UNSPACED}]{{1,64}}"
    rf"(?:(?:[{MARKS}]{{1,16}}|['\u2019](?=[^\W\d_]))[^\W{UNSPACED}]{{0,64}}){{0,16}}"  # accents, apostrophes
    # A minus: before a number, a bracket, a currency or a letter that stands alone; else it is a hyphen.
    rf"|[{DASHES}](?=\s*(?:[\d(\[{{\\$€£]|[^\W\d_](?![^\W\d_])))"
    r"|(?<=[\d)\]])!|(?<=\b[^\W\d_])!"  # a factorial
    rf"|[^\w\s{MARKS}{PLAIN}]"
)
"""A number, a character of an unspaced script, a word, a minus, a factorial, another sign. Lengths are
bounded: what is known of each word is cached."""
LETTER = re.compile("[a-z\u0370-\u03ff]")
"""A name in a formula, when it stands alone."""
NUMBER_WORD = re.compile(
    "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|"
    "(thir|four|fif|six|seven|eigh|nine)teen|(twen|thir|for|fif|six|seven|eigh|nine)ty|"
    "hundred|thousand|million|billion|dozen|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|"
    "half|halves|thirds|quarters?|once|twice|thrice|double|triple|quadruple"
)
"""English alone; digits and numerals are numbers in every script."""

_MULTIPLIER = 0x9E3779B97F4A7C15  # 2 to the 64 by the golden ratio: odd, without a pattern in its bits
MAX_RUN = 64
POWERS: HashArray = np.array([pow(_MULTIPLIER, k + 1, 1 << 64) for k in range(MAX_RUN)], dtype=np.uint64)


class Wording(NamedTuple):
    """What of a text is compared."""

    words_T: HashArray
    """A hash of each word in order, its case aside; odd for figures, even for others."""
    key: int
    """64 bits; the same for texts of the same words in the same case and order."""
    figures: int
    """64 bits; the same for texts with the same figures in the same order: numbers, number words, letters
    that stand alone, and all signs but plain punctuation."""
    num_numbers: int
    """How many numbers are written in digits."""


def wording(text: str) -> Wording:
    """Read the words of a text."""
    tokens = TOKEN.findall(unicodedata.normalize("NFC", text))  # NFKC would read "10²" as "102"
    words_T = np.fromiter(map(_hashed, tokens), np.uint64, len(tokens))
    figures = np.flatnonzero(words_T & np.uint64(1))
    return Wording(
        words_T=words_T,
        key=_hash(" ".join(tokens).encode()),
        figures=_hash(words_T[figures].tobytes()),
        num_numbers=sum(tokens[place][0].isdecimal() for place in figures.tolist()),
    )


def runs(words_T: HashArray, length: int) -> HashArray:
    """A hash of each run of `length` words (1 to 64), each once and sorted; none of a shorter text.

    It is the polynomial of the words' hashes at a fixed odd number, modulo 2 to the 64.
    """
    if len(words_T) < length:
        return np.empty(0, dtype=np.uint64)
    found: HashArray = np.sort(np.convolve(words_T, POWERS[:length], "valid"))
    different: HashArray = found[np.append(True, found[1:] != found[:-1])]  # np.unique is slower on so few
    return different


def holds_figures(whole: Wording, part: Wording) -> bool:
    """Whether one text has the figures of another, in the same order and with none between them."""
    inside, wanted = (item.words_T[item.words_T & np.uint64(1) == 1] for item in (whole, part))
    if len(wanted) > len(inside) or not len(wanted):
        return not len(wanted)
    return bool((sliding_window_view(inside, len(wanted)) == wanted).all(axis=1).any())


@lru_cache(maxsize=1 << 16)
def _hashed(word: str) -> int:
    """64 bits of a word, the lowest of which says whether it is a figure."""
    word = "-" if re.fullmatch(f"[{DASHES}]", word) else word.casefold().replace("\u2019", "'")
    return _hash(word.encode()) & ~1 | _is_figure(word)


def _is_figure(word: str) -> bool:
    is_sign = not (word[0].isalnum() or word[0] == "_")
    is_number = any(character.isnumeric() for character in word) or NUMBER_WORD.fullmatch(word) is not None
    return is_sign or is_number or LETTER.fullmatch(word) is not None


def _hash(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")
