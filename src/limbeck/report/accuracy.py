"""From held-out results to accuracies, comparisons and the decision."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from limbeck.intervals import FloatArray, mean_interval, paired_interval
from limbeck.records import Decoding, EvalResult
from limbeck.report.figures import interval, percent, points
from limbeck.report.model import AccuracyRow, Comparison, Decision

ORDER = (
    "teacher",
    "student",
    "sft_all",
    "sft_selected",
    "ppo_agreement",
    "ppo_mixed",
    "ppo_model",
    "policy",
)
BASELINES = ("sft_selected", "teacher")
DECODINGS: tuple[Decoding, ...] = ("sampled", "greedy")

PromptScores = Mapping[tuple[str, Decoding], Mapping[str, float]]
"""(row, decoding) -> prompt id -> share of its samples that are right."""


def prompt_scores(results: Sequence[EvalResult], picked: str) -> PromptScores:
    """Mean correctness of each prompt, in the report's order of rows; `picked` is there again as `policy`.

    Prompts without a gold answer are left out; a row may so be empty.
    """
    right: dict[tuple[str, Decoding], dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        names = (result.name, "policy") if result.name == picked else (result.name,)
        for name in names:
            of_row = right[name, result.decoding]
            if result.correct is not None:
                of_row[result.prompt_id].append(result.correct)
    names_in_order = sorted({name for name, _ in right}, key=_position)
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


def comparisons(scores: PromptScores, num_resamples: int, seed: int) -> tuple[Comparison, ...]:
    """Each row against `sft_selected` and against `teacher`, over the prompts that both have."""
    compared = []
    for (name, decoding), of_row in scores.items():
        for baseline in BASELINES:
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


def decide(
    rows: Sequence[AccuracyRow], compared: Sequence[Comparison], picked: str, checkpoint_uri: str
) -> Decision:
    """Promote the policy when, sampled, it is above both baselines and both intervals exclude 0.

    Args:
        rows: All accuracies.
        compared: All comparisons.
        picked: The checkpoint's own name.
        checkpoint_uri: The folder of its weights.
    """
    policy = next((row for row in rows if (row.name, row.decoding) == ("policy", "sampled")), None)
    against = {c.b: c for c in compared if (c.a, c.decoding) == ("policy", "sampled")}
    missing = [name for name in BASELINES if name not in against]
    if policy is None or policy.accuracy is None or missing:
        if policy is not None and policy.accuracy is None:
            reason = "The held-out prompts have no gold answers, so no accuracy was measured."
        else:
            reason = f"Rows are missing: {', '.join(missing) or 'policy'}."
        return Decision(
            promote=False,
            outcome="not decided",
            headline="Whether the student passed its teacher was not measured.",
            reason=reason,
            policy=picked,
            checkpoint_uri=checkpoint_uri,
        )

    above = {name: is_above(against[name]) for name in BASELINES}
    open_against = [name for name in BASELINES if not above[name]]
    shown = " and ".join(
        f"{points(against[name].difference)} points against {name} (95% interval "
        f"{interval(against[name].interval, signed=True)})"
        for name in BASELINES
    )
    if open_against:
        verdict = f"Against {' and '.join(open_against)} it does not lie above 0: do not promote it."
    else:
        verdict = "Both intervals lie above 0: promote it."
    return Decision(
        promote=not open_against,
        outcome="do not promote" if open_against else "promote",
        headline=_headline(against["teacher"]),
        reason=(
            f"On {policy.n:,} held-out prompts, sampled, the policy ({picked}) answers "
            f"{percent(policy.accuracy)} right (95% interval {interval(policy.interval)}): {shown}. {verdict}"
        ),
        policy=picked,
        checkpoint_uri=checkpoint_uri,
    )


def is_above(comparison: Comparison) -> bool:
    """Whether `a` is better than `b` beyond chance: the interval lies above 0."""
    return comparison.interval is not None and comparison.interval[0] > 0


def _headline(against_teacher: Comparison) -> str:
    if is_above(against_teacher):
        return "The student passed its teacher."
    if against_teacher.interval is not None and against_teacher.interval[1] < 0:
        return "The student did not pass its teacher."
    return "The student is level with its teacher: the difference is within chance."


def _array(of_row: Mapping[str, float], prompt_ids: Sequence[str]) -> FloatArray:
    return np.array([of_row[prompt_id] for prompt_id in prompt_ids], dtype=np.float64)


def _position(name: str) -> tuple[int, str]:
    """Known rows in their order; unknown ones before the policy, by name."""
    return (ORDER.index(name), "") if name in ORDER else (len(ORDER) - 2, name)
