"""Accuracies and comparisons, from results made by hand."""

from collections.abc import Callable
from operator import eq

import numpy as np
import pytest

from limbeck.intervals import paired_interval
from limbeck.records import EvalResult
from limbeck.report.accuracy import accuracy_rows, comparisons, prompt_scores
from limbeck.report.answers import collect
from limbeck.report.decision import decide

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
        num_tokens=1,
        finish_reason="stop",
    )


def test_a_prompt_counts_with_the_mean_over_its_samples() -> None:
    # p: 1 of 2 right; q: 3 of 3. Accuracy (0.5 + 1) / 2, not 4 of 5.
    results = [result("teacher", "p", i, i == 0) for i in range(2)]
    results += [result("teacher", "q", i, True) for i in range(3)]
    row, _ = accuracy_rows(prompt_scores(collect(results, eq)), 50, 1)
    assert (row.name, row.n, row.accuracy) == ("teacher", 2, 0.75)
    assert row.interval is not None
    assert row.interval[0] <= 0.75 <= row.interval[1]


def test_the_picked_run_is_there_again_as_policy_and_last(results_of: MakeResults) -> None:
    names = {"ppo_model": 0.5, "new": 0.3, "ppo_mixed": 0.6, "teacher": 0.5}
    scores = prompt_scores(collect(results_of(names, 20), eq, "ppo_mixed"))
    sampled = [name for name, decoding in scores if decoding == "sampled"]
    assert sampled == ["teacher", "ppo_mixed", "ppo_model", "new", "policy"]
    assert scores["policy", "sampled"] == scores["ppo_mixed", "sampled"]
    assert scores["policy", "greedy"] != scores["ppo_model", "greedy"]


def test_comparisons_pair_the_prompts_that_both_rows_have() -> None:
    right = {"teacher": "pq", "sft_selected": "pqr"}
    seen = {"teacher": "pqrs", "sft_selected": "qrst"}
    results = [result(n, p, 0, p in right[n]) for n in seen for p in seen[n]]
    compared = {(c.a, c.b): c for c in comparisons(prompt_scores(collect(results, eq)), 200, 3)}
    assert set(compared) == {("teacher", "sft_selected"), ("sft_selected", "teacher")}
    # Shared: q, r, s. Teacher 1, 0, 0; SFT 1, 1, 0.
    item = compared["sft_selected", "teacher"]
    assert item.n == 3
    assert item.difference == pytest.approx(1 / 3)
    assert item.interval == paired_interval(np.array([1.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0]), 200, 3)


def test_without_gold_accuracy_is_null_and_nothing_is_decided(results_of: MakeResults) -> None:
    names = {"teacher": 0.5, "sft_selected": 0.5, "ppo_model": 0.6}
    scores = prompt_scores(collect(results_of(names, 10, with_gold=False), eq, "ppo_model"))
    rows, compared = accuracy_rows(scores, 50, 1), comparisons(scores, 50, 1)
    assert {row.name for row in rows} == {"teacher", "sft_selected", "ppo_model", "policy"}
    assert all((row.n, row.accuracy, row.interval) == (0, None, None) for row in rows)
    assert all((c.n, c.difference, c.interval) == (0, None, None) for c in compared)
    made = decide(rows, compared, "ppo_model", "s3://x")
    assert (made.promote, made.outcome) == (False, "not decided")
    assert "no gold answers" in made.reason
