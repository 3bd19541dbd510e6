"""From held-out results to accuracies and comparisons."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from limbeck.intervals import FloatArray, mean_interval, paired_interval
from limbeck.records import Decoding, EvalResult
from limbeck.report.decision import DISTILLED, POLICY
from limbeck.report.model import AccuracyRow, Comparison

ORDER = (
    "teacher",
    "student",
    "sft_all",
    "sft_selected",
    "ppo_agreement",
    "ppo_mixed",
    "ppo_model",
    POLICY,
)
DECODINGS: tuple[Decoding, ...] = ("sampled", "greedy")

PromptScores = Mapping[tuple[str, Decoding], Mapping[str, float]]
"""(row, decoding) -> prompt id -> share of its samples that are right."""


def prompt_scores(
    results: Iterable[EvalResult], picked: str | None, order: Sequence[str] = ORDER
) -> PromptScores:
    """Mean correctness of each prompt, in the report's order of rows.

    Prompts without a gold answer are left out; a row may so be empty.

    Args:
        results: Of all models.
        picked: The PPO run that is there again as `policy`, if any.
        order: Names in the order of their rows; others come before the last but one, by name.
    """
    right: dict[tuple[str, Decoding], dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        names = (result.name, POLICY) if result.name == picked else (result.name,)
        for name in names:
            of_row = right[name, result.decoding]
            if result.correct is not None:
                of_row[result.prompt_id].append(result.correct)
    names_in_order = sorted({name for name, _ in right}, key=lambda name: _position(name, order))
    return {
        (name, decoding): {prompt: sum(hits) / len(hits) for prompt, hits in right[name, decoding].items()}
        for decoding in DECODINGS
        for name in names_in_order
        if (name, decoding) in right
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


def _position(name: str, order: Sequence[str]) -> tuple[int, str]:
    """Known rows in their order; unknown ones before the policy, by name."""
    return (order.index(name), "") if name in order else (len(order) - 2, name)
