"""How long the answers are, how many are cut off, and what one costs."""

from collections.abc import Mapping

import numpy as np

from limbeck.intervals import mean_interval
from limbeck.report.answers import Answers
from limbeck.report.model import AnswerLength

MILLION = 1_000_000


def answer_lengths(
    answers: Answers, prices: Mapping[str, float], num_resamples: int, seed: int
) -> tuple[AnswerLength, ...]:
    """Completion tokens by row; prompts that were not asked do not count.

    Args:
        answers: Of all rows; a majority takes the tokens of all its samples.
        prices: Of a million completion tokens, by the row's name.
        num_resamples: Bootstrap resamples over prompts of each interval.
        seed: The same seed gives the same intervals.
    """
    rows = []
    for (name, decoding), of_row in answers.items():
        asked = [
            [(item.num_tokens, item.cut) for item in given if item.num_tokens is not None]
            for given in of_row.values()
        ]
        # By prompt: (mean tokens, share cut off), each over its answers.
        means = [np.mean(given, axis=0) for given in asked if given]
        tokens, cut = np.array(means, dtype=np.float64).reshape(-1, 2).T
        mean = float(tokens.mean()) if len(tokens) else None
        price = prices.get(name)
        rows.append(
            AnswerLength(
                name=name,
                decoding=decoding,
                n=len(tokens),
                mean_tokens=mean,
                interval=mean_interval(tokens, num_resamples, seed),
                median_tokens=float(np.median(tokens)) if len(tokens) else None,
                cut=float(cut.mean()) if len(tokens) else None,
                cost=None if price is None or mean is None else price * mean / MILLION,
            )
        )
    return tuple(rows)
