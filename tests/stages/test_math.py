"""Stages of the kind `math`: what is written in several ways is one answer."""

from typing import Any

import pytest

from limbeck.config import Config
from limbeck.manifest import Manifest
from limbeck.records import EvalResult, LabelledCompletion, PseudoLabel
from limbeck.rows import read_rows
from limbeck.stages.evaluate import run as evaluate
from limbeck.stages.generate import run as generate
from limbeck.stages.label import run as label
from limbeck.stages.prepare import Prepared
from limbeck.storage import Store
from tests.fakes import ScriptedSampler
from tests.stages.conftest import ConfigFor

SETTINGS: dict[str, dict[str, Any]] = {
    "generate": {"teacher": {"samples_per_prompt": 9, "max_tokens": 8}, "student": {"samples_per_prompt": 1}},
    "label": {"rule": "majority", "validation_prompts": 1},
    "evaluate": {"samples_per_prompt": 3, "max_tokens": 8},
}
WAYS = (r"\boxed{{\sqrt{{{square}}}}}", "The answer is {number}.0.", r"\boxed{{2\cdot{number}-{number}}}")
"""The number in three ways; two of them take algebra."""


def several_ways(prompt: str, seed: int | None) -> str:
    """Five of nine times right, in three ways; else always the same wrong number."""
    number = int(prompt.split()[1])
    draw = (seed or 0) % 9
    if draw >= 5:
        return f"The answer is {number + 100}."
    return WAYS[draw % 3].format(number=number, square=number**2)


def made_by(prepared: Prepared, config: Config, store: Store, work_uri: str) -> Manifest:
    sampler = ScriptedSampler(several_ways)
    return generate(prepared.prompts, "t", lambda: sampler, config, store, work_uri, role="teacher")


def test_votes_and_pseudo_rewards_count_what_is_the_same_together(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    config = config_for(task={"kind": "math", "compare_seconds": 10}, **SETTINGS)
    made = made_by(prepared, config, store, work_uri)
    out = label(prepared.prompts, [made], [], None, config, store, work_uri)
    rows = read_rows(store, out.labelled, LabelledCompletion)
    assert rows
    by_prompt: dict[str, list[LabelledCompletion]] = {}
    for row in rows:
        by_prompt.setdefault(row.prompt_id, []).append(row)
    num_mixed = 0
    for group in by_prompt.values():
        right = [row for row in group if not row.text.endswith(f" {int(row.prompt.split()[1]) + 100}.")]
        shares = {round(len(right) / len(group), 6), round(1 - len(right) / len(group), 6)}
        assert {round(row.vote_share, 6) for row in group} <= shares  # not parted by the way of writing
        rewarded = {row.completion_id for row in group if row.pseudo_reward}
        ids = {row.completion_id for row in right}
        assert rewarded in (ids, {row.completion_id for row in group} - ids)
        assert all(row.selected == bool(row.pseudo_reward) for row in group)
        num_mixed += rewarded == ids and len({row.text for row in right}) > 1
    assert num_mixed
    assert out.labels.metrics["label/slow_comparisons"] == 0.0

    plain = config_for(task={"kind": "math", "compare_seconds": 10}, **SETTINGS)
    again = label(prepared.prompts, [made], [], out.labels, plain, store, f"{work_uri}/again")
    agreeing = [row.pseudo_reward for row in read_rows(store, again.labelled, LabelledCompletion)]
    assert agreeing == [row.pseudo_reward for row in rows]


def test_formulas_that_never_end_are_votes_of_their_own(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    def towers(prompt: str, seed: int | None) -> str:
        return r"\boxed{9^{9^{9^{9}}}}" if (seed or 0) % 3 == 0 else r"\boxed{3}"

    few = {**SETTINGS, "generate": {"teacher": {"samples_per_prompt": 6, "max_tokens": 8}}}
    config = config_for(task={"kind": "math", "compare_seconds": 1.5}, **few)
    sampler = ScriptedSampler(towers)
    made = generate(prepared.prompts, "t", lambda: sampler, config, store, work_uri, role="teacher")
    out = label(prepared.prompts, [made], [], None, config, store, work_uri)
    answers = {row.answer for row in read_rows(store, out.labels, PseudoLabel)}
    assert "3" in answers
    assert out.labels.metrics["label/slow_comparisons"] >= 1.0


def test_gold_may_be_written_in_another_way(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    config = config_for(task={"kind": "math", "compare_seconds": 10}, **SETTINGS)
    sampler = ScriptedSampler(several_ways)
    made = evaluate(prepared.heldout, prepared.gold, "m", lambda: sampler, config, store, work_uri, name="x")
    rows = read_rows(store, made, EvalResult)
    numbers = [row for row in rows if not row.text.startswith("The answer is 1") or row.text.endswith(".0.")]
    assert {row.correct for row in numbers} == {True}
    assert sum(bool(row.correct) for row in rows) == len(numbers) < len(rows)
    sampled = [row.correct for row in rows if row.decoding == "sampled"]
    assert made.metrics["evaluate/accuracy_sampled"] == pytest.approx(sum(map(bool, sampled)) / len(sampled))
    assert made.metrics["evaluate/slow_comparisons"] == 0.0
