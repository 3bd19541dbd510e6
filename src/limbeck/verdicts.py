"""Which of two verdict words a model meant, where its tokens are known as text alone."""

import math
from collections.abc import Iterable
from typing import Literal

AROUND = " \t\r\n\"'`*_.,:;!?()[]{}#▁Ġ"
"""What may stand around a word: space, quotes, marks, and how some servers write the space of a token."""


def word_of(text: str, verdict: tuple[str, str]) -> Literal[0, 1] | None:
    """Which word a verdict's first token, or its whole text, stands for; None when it is neither.

    A token may be the beginning of a word (`cor` of `correct`), a text may go on after it (`Yes, it is`).
    Case does not matter.
    """
    said = text.strip(AROUND).casefold()
    meant = [_is_or_begins(said, word.strip().casefold()) for word in verdict]
    if not said or meant[0] == meant[1]:
        return None
    return 0 if meant[0] else 1


def _is_or_begins(said: str, word: str) -> bool:
    """Whether what was said is a word's beginning, or begins with the whole word."""
    return word.startswith(said) or (said.startswith(word) and not said[len(word)].isalnum())


def probability(tokens: Iterable[tuple[str, float]], verdict: tuple[str, str]) -> float | None:
    """P(first) / (P(first) + P(second)) over the likeliest first tokens.

    Source: P(True) of arXiv 2207.05221; the sum over a word's forms (yes, Yes, " yes") is ours, as in
    `limbeck.sampler`.

    Args:
        tokens: Each with its log-probability.
        verdict: The two words.

    Returns:
        None when no token stands for either word.
    """
    found = [0.0, 0.0]
    for text, logprob in tokens:
        place = word_of(text, verdict)
        if place is not None:
            found[place] += math.exp(min(logprob, 0.0))
    return found[0] / sum(found) if sum(found) > 0 else None
