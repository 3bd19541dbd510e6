"""From held-out answers to accuracies and comparisons."""

from collections.abc import Mapping, Sequence

import numpy as np

from limbeck.intervals import FloatArray, mean_interval, paired_interval
from limbeck.report.answers import Answers
from limbeck.report.decision import DISTILLED
from limbeck.report.model import AccuracyRow, Comparison, RowDecoding

PromptScores = Mapping[tuple[str, RowDecoding], Mapping[str, float]]
"""(row, decoding) -> prompt id -> share of its answers that are right: the chance of a right one."""


def prompt_scores(answers: Answers) -> PromptScores:
    """Mean correctness of each prompt; prompts without a gold answer are left out, so a row may be empty.

    Sampled, the mean over prompts is pass@1, estimated from k samples: c / k of a prompt are right.

    Source: Chen et al. 2021 (arXiv 2107.03374), equation 1 with k = 1.
    """
    return {
        row: {
            prompt: sum(bool(item.correct) for item in given) / len(given)
            for prompt, given in of_row.items()
            if given[0].correct is not None
        }
        for row, of_row in answers.items()
    }


def accuracy_rows(scores: PromptScores, num_resamples: int, seed: int) -> tuple[AccuracyRow, ...]:
    """Accuracy of each row, with the 95% interval of its mean over prompts."""
    rows = []
    for (name, decoding), of_row in scores.items():
        values = _array(of_row, list(of_row))
        rows.append(
            AccuracyRow(
                name=name,
                decoding=decoding,
                n=len(values),
                accuracy=float(values.mean()) if len(values) else None,
                interval=mean_interval(values, num_resamples, seed),
            )
        )
    return tuple(rows)


def comparisons(
    scores: PromptScores, num_resamples: int, seed: int, baselines: Sequence[str] = DISTILLED.baselines
) -> tuple[Comparison, ...]:
    """Each row against each baseline, over the prompts that both have."""
    compared = []
    for (name, decoding), of_row in scores.items():
        for baseline in baselines:
            of_baseline = scores.get((baseline, decoding))
            if name == baseline or of_baseline is None:
                continue
            shared = [prompt_id for prompt_id in of_row if prompt_id in of_baseline]
            a, b = _array(of_row, shared), _array(of_baseline, shared)
            compared.append(
                Comparison(
                    a=name,
                    b=baseline,
                    decoding=decoding,
                    n=len(shared),
                    difference=float(a.mean() - b.mean()) if shared else None,
                    interval=paired_interval(a, b, num_resamples, seed),
                )
            )
    return tuple(compared)


def _array(of_row: Mapping[str, float], prompt_ids: Sequence[str]) -> FloatArray:
    return np.array([of_row[prompt_id] for prompt_id in prompt_ids], dtype=np.float64)
