"""evaluate: accuracy against gold, greedy and sampled."""

import pytest

from limbeck.errors import DataError
from limbeck.records import EvalResult, GoldAnswer
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
