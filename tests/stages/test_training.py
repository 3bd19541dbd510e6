"""sft and reward as stages: what they hand to their trainers, what they commit, where they stop."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limbeck.errors import DataError, GateError
from limbeck.manifest import Manifest
from limbeck.records import LabelledCompletion, Source
from limbeck.stages import reward, sft
from limbeck.storage import Store
from tests.stages.conftest import ConfigFor
from tests.stages.trainers import Trainer, given


def row(number: int, source: Source = "teacher", **values: Any) -> LabelledCompletion:
    fields = {
        "completion_id": f"{number}{source}",
        "prompt_id": str(number),
        "prompt": f"sum {number}",
        "source": source,
        "text": f"= {number}",
        "pseudo_reward": float(number % 2),
        "vote_share": 1.0,
        "selected": number % 2 == 1,
        "validation": number < 10,
    }
    return LabelledCompletion.model_validate(fields | values)


def no_base(folder: Path) -> Path:
    return folder


@pytest.mark.parametrize(("selection", "expected"), [("selected", range(11, 40, 2)), ("all", range(10, 40))])
def test_sft_trains_on_what_was_selected_and_never_on_validation_prompts(
    store: Store, work_uri: str, config_for: ConfigFor, selection: sft.Selection, expected: range
) -> None:
    labelled = given(store, f"{work_uri}/labelled", "labelled", [row(n) for n in range(40)])
    trainer = Trainer({"history": [{"step": 1.0, "sft/loss": 0.5}]})
    config = config_for(task={"prompt_template": "Q: {prompt}"})
    made = sft.run(labelled, "hash", no_base, trainer, config, store, work_uri, selection=selection)
    assert trainer.calls[0]["pairs"] == [(f"Q: sum {n}", f"= {n}") for n in expected]
    assert (made.name, made.num_rows) == (f"sft_{selection}", len(expected))
    assert made.rejected["kept for validation"] == 10
    assert made.num_rows + sum(made.rejected.values()) == made.num_input_rows == 40
    again = sft.run(labelled, "hash", no_base, trainer, config, store, work_uri, selection=selection)
    assert again == made
    assert len(trainer.calls) == 1


def test_a_node_that_does_not_lead_trains_alike_and_writes_nothing(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    labelled = given(store, f"{work_uri}/labelled", "labelled", [row(n) for n in range(40)])
    trainer, scorer = (
        Trainer({"history": []}),
        Trainer({"history": [], "validation_scores": np.array(RIGHT * 2)}),
    )
    teacher, student = both_sides(store, work_uri)
    there = store.sizes(work_uri)
    sft.follow(labelled, "hash", no_base, trainer, config_for(), store, work_uri, selection="all")
    reward.follow(teacher, student, "hash", no_base, scorer, config_for(), store, work_uri)
    assert store.sizes(work_uri) == there
    sft.run(labelled, "hash", no_base, trainer, config_for(), store, work_uri, selection="all")
    reward.run(teacher, student, "hash", no_base, scorer, config_for(), store, work_uri)
    sft.follow(labelled, "hash", no_base, trainer, config_for(), store, work_uri, selection="all")
    reward.follow(teacher, student, "hash", no_base, scorer, config_for(), store, work_uri)
    for calls, learnt in ((trainer.calls, "pairs"), (scorer.calls, "training")):
        assert len(calls) == 2, "once done, it is done for all nodes"
        assert calls[0][learnt] == calls[1][learnt]


def test_sft_with_nothing_selected_stops(store: Store, work_uri: str, config_for: ConfigFor) -> None:
    labelled = given(store, f"{work_uri}/labelled", "labelled", [row(n, selected=False) for n in range(20)])
    with pytest.raises(DataError, match=r"no completion was selected.*20 labelled"):
        sft.run(labelled, "hash", no_base, Trainer({}), config_for(), store, work_uri, selection="selected")


def both_sides(store: Store, work_uri: str) -> tuple[Manifest, Manifest]:
    teacher = given(store, f"{work_uri}/t", "labelled", [row(n) for n in range(40)])
    student = given(store, f"{work_uri}/s", "labelled", [row(n, "student") for n in range(40)])
    return teacher, student


def train_reward(
    scores: list[float], store: Store, work_uri: str, config_for: ConfigFor, min_auc: float
) -> tuple[Manifest, Trainer]:
    trainer = Trainer({"history": [], "validation_scores": np.array(scores)})
    config = config_for(reward={"min_auc": min_auc})
    teacher, student = both_sides(store, work_uri)
    return reward.run(teacher, student, "hash", no_base, trainer, config, store, work_uri), trainer


RIGHT = [0.9 if n % 2 else 0.1 for n in range(10)]


def test_the_reward_model_is_measured_on_prompts_it_never_saw(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    made, trainer = train_reward(RIGHT * 2, store, work_uri, config_for, min_auc=0.9)
    (call,) = trainer.calls
    seen = {item.prompt_id for item in call["training"]}
    held = {item.prompt_id for item in call["validation"]}
    assert not seen & held
    assert (len(seen), len(held)) == (30, 10)
    assert made.metrics["reward/auc_student"] == made.metrics["reward/auc_teacher"] == 1.0
    assert made.metrics["reward/ece_student"] == pytest.approx(0.1)
    # All rows have vote share 1.
    assert made.metrics["reward/ece_vote_share_0.75_1"] == pytest.approx(0.1)
    assert made.metrics["reward/num_rows_vote_share_0.75_1"] == 20.0
    assert not any("auc_vote_share_0_0.5" in name for name in made.metrics)
    (item,) = [item for item in made.objects if item.uri.endswith("/reliability.json")]
    bins = json.loads(store.read_bytes(item.uri))
    assert set(bins) == {"teacher", "student"}
    full = {place: entry for place, entry in enumerate(bins["student"]) if entry["count"]}
    assert {place: (entry["count"], entry["observed"]) for place, entry in full.items()} == {
        0: (5, 0.0),
        8: (5, 1.0),
    }


def test_a_weak_reward_model_stops_the_run_until_the_gate_is_lowered(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    guesses = [*RIGHT, *[0.5] * 10]
    with pytest.raises(
        GateError, match=r"too weak for PPO.*at least 0\.6 \(reward\.min_auc\), got 0\.500"
    ) as caught:
        train_reward(guesses, store, work_uri, config_for, min_auc=0.6)
    assert caught.value.exit_code == 6
    made, trainer = train_reward(guesses, store, work_uri, config_for, min_auc=0.4)
    assert made.metrics["reward/auc_student"] == 0.5
    assert not trainer.calls, "the checkpoint was there already: only the gate has changed"


def test_rows_of_one_kind_teach_nothing(store: Store, work_uri: str, config_for: ConfigFor) -> None:
    teacher = given(store, f"{work_uri}/t", "labelled", [row(n, pseudo_reward=1.0) for n in range(40)])
    with pytest.raises(DataError, match=r"the training rows of the reward model are all alike"):
        reward.run(teacher, teacher, "hash", no_base, Trainer({}), config_for(), store, work_uri)
