"""Accuracies, comparisons and the decision, from results made by hand."""

from collections.abc import Callable

import numpy as np
import pytest

from limbeck.intervals import paired_interval
from limbeck.records import EvalResult
from limbeck.report.accuracy import accuracy_rows, comparisons, decide, prompt_scores
from limbeck.report.model import AccuracyRow, Comparison, Decision

MakeResults = Callable[..., list[EvalResult]]


def result(name: str, prompt_id: str, sample: int, correct: bool | None) -> EvalResult:
    return EvalResult(
        prompt_id=prompt_id,
        name=name,
        decoding="sampled",
        sample_index=sample,
        text="",
        answer=None,
        correct=correct,
    )


def test_a_prompt_counts_with_the_mean_over_its_samples() -> None:
    # p: 1 of 2 right; q: 3 of 3. Accuracy (0.5 + 1) / 2, not 4 of 5.
    results = [result("teacher", "p", i, i == 0) for i in range(2)]
    results += [result("teacher", "q", i, True) for i in range(3)]
    (row,) = accuracy_rows(prompt_scores(results, "ppo_model"), 50, 1)
    assert (row.name, row.n, row.accuracy) == ("teacher", 2, 0.75)
    assert row.interval is not None
    assert row.interval[0] <= 0.75 <= row.interval[1]


def test_the_picked_run_is_there_again_as_policy_and_last(results_of: MakeResults) -> None:
    names = {"ppo_model": 0.5, "new": 0.3, "ppo_mixed": 0.6, "teacher": 0.5}
    scores = prompt_scores(results_of(names, 20), "ppo_mixed")
    sampled = [name for name, decoding in scores if decoding == "sampled"]
    assert sampled == ["teacher", "ppo_mixed", "ppo_model", "new", "policy"]
    assert scores["policy", "sampled"] == scores["ppo_mixed", "sampled"]
    assert scores["policy", "greedy"] != scores["ppo_model", "greedy"]


def test_comparisons_pair_the_prompts_that_both_rows_have() -> None:
    right = {"teacher": "pq", "sft_selected": "pqr"}
    seen = {"teacher": "pqrs", "sft_selected": "qrst"}
    results = [result(n, p, 0, p in right[n]) for n in seen for p in seen[n]]
    compared = {(c.a, c.b): c for c in comparisons(prompt_scores(results, "ppo_model"), 200, 3)}
    assert set(compared) == {("teacher", "sft_selected"), ("sft_selected", "teacher")}
    # Shared: q, r, s. Teacher 1, 0, 0; SFT 1, 1, 0.
    item = compared["sft_selected", "teacher"]
    assert item.n == 3
    assert item.difference == pytest.approx(1 / 3)
    assert item.interval == paired_interval(np.array([1.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0]), 200, 3)


def decision(against_sft: tuple[float, float], against_teacher: tuple[float, float]) -> Decision:
    row = AccuracyRow(name="policy", decoding="sampled", n=1000, accuracy=0.589, interval=(0.56, 0.62))
    compared = [
        Comparison(a="policy", b=b, decoding="sampled", n=1000, difference=sum(i) / 2, interval=i)
        for b, i in (("sft_selected", against_sft), ("teacher", against_teacher))
    ]
    # Greedy says the opposite: it must not count.
    compared += [
        item.model_copy(update={"decoding": "greedy", "interval": (-high, -low)})
        for item, (low, high) in zip(compared, (against_sft, against_teacher), strict=True)
    ]
    return decide([row], compared, "ppo_mixed", "s3://w/ppo/x/abc")


def test_policy_above_both_is_promoted() -> None:
    made = decision((0.02, 0.06), (0.04, 0.09))
    assert (made.promote, made.outcome) == (True, "promote")
    assert made.headline == "The student passed its teacher."
    assert "1,000 held-out prompts" in made.reason
    assert "58.9% right (95% interval 56.0 to 62.0)" in made.reason
    assert "+6.5 points against teacher (95% interval +4.0 to +9.0)" in made.reason
    assert (made.policy, made.checkpoint_uri) == ("ppo_mixed", "s3://w/ppo/x/abc")


@pytest.mark.parametrize(
    ("against_sft", "against_teacher", "headline", "open_against"),
    [
        ((-0.01, 0.05), (0.01, 0.05), "The student passed its teacher.", "Against sft_selected it"),
        ((0.01, 0.05), (0.0, 0.05), "The student is level", "Against teacher it"),
        ((0.01, 0.05), (-0.05, -0.01), "The student did not pass", "Against teacher it"),
        ((-0.01, 0.05), (-0.01, 0.05), "The student is level", "Against sft_selected and teacher it"),
    ],
)
def test_an_interval_that_touches_zero_is_not_promoted(
    against_sft: tuple[float, float], against_teacher: tuple[float, float], headline: str, open_against: str
) -> None:
    made = decision(against_sft, against_teacher)
    assert (made.promote, made.outcome) == (False, "do not promote")
    assert made.headline.startswith(headline)
    assert open_against in made.reason


def test_without_gold_accuracy_is_null_and_nothing_is_decided(results_of: MakeResults) -> None:
    names = {"teacher": 0.5, "sft_selected": 0.5, "ppo_model": 0.6}
    scores = prompt_scores(results_of(names, 10, with_gold=False), "ppo_model")
    rows, compared = accuracy_rows(scores, 50, 1), comparisons(scores, 50, 1)
    assert {row.name for row in rows} == {"teacher", "sft_selected", "ppo_model", "policy"}
    assert all((row.n, row.accuracy, row.interval) == (0, None, None) for row in rows)
    assert all((c.n, c.difference, c.interval) == (0, None, None) for c in compared)
    made = decide(rows, compared, "ppo_model", "s3://x")
    assert (made.promote, made.outcome) == (False, "not decided")
    assert "no gold answers" in made.reason


def test_without_a_baseline_nothing_is_decided(results_of: MakeResults) -> None:
    scores = prompt_scores(results_of({"sft_selected": 0.5, "ppo_model": 0.6}, 10), "ppo_model")
    made = decide(accuracy_rows(scores, 50, 1), comparisons(scores, 50, 1), "ppo_model", "s3://x")
    assert made.outcome == "not decided"
    assert "teacher" in made.reason
