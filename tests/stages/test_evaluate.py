"""evaluate: accuracy against gold, greedy and sampled."""

import pytest

from limbeck.errors import DataError
from limbeck.manifest import Manifest
from limbeck.records import EvalResult, GoldAnswer, Prompt, row_id
from limbeck.rows import read_rows
from limbeck.stages.evaluate import run
from limbeck.stages.prepare import Prepared
from limbeck.storage import Store
from tests.fakes import ScriptedSampler
from tests.stages.conftest import ConfigFor


def half_right(prompt: str, seed: int | None) -> str:
    number = int(prompt.split()[1])
    return f"= {number if seed is None or seed % 2 else -1}"


def test_accuracy_is_the_share_of_gold_answers(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    config = config_for(evaluate={"samples_per_prompt": 3, "max_tokens": 8})
    made = run(
        prepared.heldout,
        prepared.gold,
        "m",
        lambda: ScriptedSampler(half_right),
        config,
        store,
        work_uri,
        name="x",
    )
    rows = read_rows(store, made, EvalResult)
    gold = {row.prompt_id: row.answer for row in read_rows(store, prepared.gold, GoldAnswer)}
    assert len(rows) == prepared.heldout.num_rows * 4
    assert all(row.correct == (row.answer == gold[row.prompt_id]) for row in rows)
    sampled = [row.correct for row in rows if row.decoding == "sampled"]
    assert made.metrics["evaluate/accuracy_sampled"] == pytest.approx(sum(map(bool, sampled)) / len(sampled))
    assert 0 < made.metrics["evaluate/accuracy_sampled"] < 1
    assert all((row.num_tokens, row.finish_reason) == (len(row.text), "stop") for row in rows)
    sampled_tokens = [row.num_tokens for row in rows if row.decoding == "sampled"]
    assert made.metrics["evaluate/tokens_sampled"] == sum(sampled_tokens) / len(sampled_tokens)
    assert made.metrics["evaluate/cut_greedy"] == 0.0


def test_models_are_asked_with_the_same_seeds(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    def texts(model: str) -> list[str]:
        sampler = ScriptedSampler(lambda prompt, seed: f"{prompt} {seed}")
        made = run(
            prepared.heldout, prepared.gold, model, lambda: sampler, config_for(), store, work_uri, name=model
        )
        return [row.text for row in read_rows(store, made, EvalResult)]

    assert texts("a") == texts("b")


def test_a_prompt_that_does_not_fit_is_wrong_and_counted(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    config = config_for(evaluate={"max_tokens": 20}, engine={"max_model_len": 25})
    made = run(
        prepared.heldout,
        prepared.gold,
        "m",
        lambda: ScriptedSampler(half_right),
        config,
        store,
        work_uri,
        name="x",
    )
    wrong = {row.prompt_id for row in read_rows(store, made, EvalResult) if row.sample_index < 0}
    assert made.rejected == {"prompt too long": len(wrong)}
    asked = [row for row in read_rows(store, made, EvalResult) if row.finish_reason != "not asked"]
    assert {row.prompt_id for row in asked}.isdisjoint(wrong)
    assert made.metrics["evaluate/tokens_greedy"] == pytest.approx(
        sum(row.num_tokens for row in asked if row.decoding == "greedy")
        / sum(row.decoding == "greedy" for row in asked)
    )
    none = config_for(evaluate={"max_tokens": 20}, engine={"max_model_len": 21})
    with pytest.raises(DataError, match="no held-out prompt fits the context"):
        run(
            prepared.heldout,
            prepared.gold,
            "m",
            lambda: ScriptedSampler(half_right),
            none,
            store,
            work_uri,
            name="x",
        )


def test_after_a_kill_only_missing_answers_are_asked_and_one_that_kills_the_engine_is_wrong(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    config = config_for(
        evaluate={"samples_per_prompt": 3, "max_tokens": 8}, generate={"commit_seconds": 1e-9}
    )
    victim = read_rows(store, prepared.heldout, Prompt)[2]
    first = int(row_id(config.seed, "evaluate", victim.prompt_id, 0), 16) % 2**31

    def evaluate(prefix: str, sampler: ScriptedSampler) -> Manifest:
        return run(
            prepared.heldout,
            prepared.gold,
            "m",
            lambda: sampler,
            config,
            store,
            f"{work_uri}/{prefix}",
            name="x",
        )

    def deadly(prompt: str, seed: int | None) -> bool:
        return prompt == victim.prompt and seed == first  # of the greedy and of the first sampled answer

    whole = evaluate("unbroken", ScriptedSampler(half_right, deadly=deadly))
    assert whole.rejected == {"kills the engine": 2}
    rows = read_rows(store, whole, EvalResult)
    assert len(rows) == prepared.heldout.num_rows * 4
    lost = [row for row in rows if row.prompt_id == victim.prompt_id and row.sample_index == 0]
    assert [(row.text, row.answer, row.correct) for row in lost] == [("", None, False)] * 2
    assert {(row.num_tokens, row.finish_reason) for row in lost} == {(0, "not asked")}

    with pytest.raises(KeyboardInterrupt):
        evaluate("killed", ScriptedSampler(half_right, deadly=deadly, die_after=13))
    second = ScriptedSampler(half_right, deadly=deadly)
    made = evaluate("killed", second)
    assert len(second.answered) == len(rows) - 2 - 13
    assert made.content_hash == whole.content_hash
    assert made.metrics == whole.metrics
    assert made.rejected == whole.rejected
