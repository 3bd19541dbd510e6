"""Which of two verdict words a model meant, where its tokens are known as text alone."""

import math
from collections.abc import Sequence
from typing import Literal

AROUND = " \t\r\n\"'`*_.,:;!?()[]{}#▁Ġ"
"""What may stand around a word: space, quotes, marks, and how some servers write the space of a token."""

Word = Literal[0, 1]


def word_of(text: str, verdict: tuple[str, str]) -> Word | None:
    """Which word a verdict's text stands for; None when it is neither.

    It may go on after the word (`Yes, it is`), or be the beginning of it alone (`cor` of `correct`) where
    one token was asked for. Case does not matter.
    """
    said = _bare(text)
    meant = [
        word.startswith(said) or (said.startswith(word) and not said[len(word)].isalnum())
        for word in map(_bare, verdict)
    ]
    if not said or meant[0] == meant[1]:
        return None
    return 0 if meant[0] else 1


def probability(tokens: Sequence[tuple[str, float]], verdict: tuple[str, str]) -> float | None:
    """P(first) / (P(first) + P(second)) over the likeliest first tokens.

    All forms of a word (yes, Yes, " yes") are added up. Tokens that only begin a word count where no token is
    a whole one, as in vocabularies that do not have it; else a lone `n` would count for `no`.

    Source: P(True) of arXiv 2207.05221; the sum over forms is ours, as in `limbeck.sampler`.

    Args:
        tokens: Each with its log-probability.
        verdict: The two words.

    Returns:
        None when no token stands for either word.
    """
    words = [_bare(word) for word in verdict]
    whole = [[_bare(text) == word for word in words] for text, _ in tokens]
    begun = [[word_of(text, verdict) == place for place in (0, 1)] for text, _ in tokens]
    for meant in (whole, begun):
        one, other = (
            sum(math.exp(min(tokens[n][1], 0.0)) for n in range(len(tokens)) if meant[n][place])
            for place in (0, 1)
        )
        if one + other > 0:
            return one / (one + other)
    return None


def _bare(text: str) -> str:
    """A text without what stands around it, and without case."""
    return text.strip(AROUND).casefold()
