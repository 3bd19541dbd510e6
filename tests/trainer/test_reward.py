"""The reward model on DeepSpeed, on rows that are easy to tell apart."""

import random
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from limbeck.config import parse_config
from limbeck.errors import ConfigError
from limbeck.metrics import auc
from limbeck.records import LabelledCompletion, Source
from limbeck.saver import Saver
from limbeck.trainer.networks import Scorer, load_tokenizer
from limbeck.trainer.reward import score_rows, train_reward
from tests import saving, tiny


def row(number: int, source: Source, *, good: bool) -> LabelledCompletion:
    letters = "abcdefghijklmnop"
    prompt = f"sum {letters[number % 16]} {letters[number // 16 % 16]}"
    return LabelledCompletion(
        completion_id=f"{number}{source}{good}",
        prompt_id=prompt,
        prompt=prompt,
        source=source,
        text="= w" if good else "= v",
        pseudo_reward=float(good),
        vote_share=1.0,
        selected=good,
        validation=False,
    )


ROWS = [
    row(n, source, good=good)
    for n in range(64)
    for source in ("teacher", "student")
    for good in (True, False)
]
HELD = [
    row(n, source, good=good)
    for n in range(64, 96)
    for source in ("teacher", "student")
    for good in (True, False)
]


def train(
    folder: Path,
    base: Path,
    training: list[LabelledCompletion],
    *,
    resume: Path | None = None,
    saver: Saver | None = None,
    dtype: str = "float32",
    **reward: Any,
) -> Any:
    config = parse_config(
        {
            "student": {"dtype": dtype},
            "reward": {
                "learning_rate": 3e-3,
                "num_epochs": 4,
                "batch_size": 16,
                "evaluate_every": 4,
                **reward,
            },
        }
    )
    folder.mkdir()
    return train_reward(
        base,
        training,
        HELD,
        config,
        folder,
        resume,
        saver or saving.no_saver(),
    )


@pytest.mark.parametrize("loss", ["bce", "bradley_terry"])
@pytest.mark.parametrize(
    "deepspeed", [{"zero_stage": 0}, {"zero_stage": 3}, {"zero_stage": 2, "lora_rank": 4}], ids=str
)
def test_it_learns_to_tell_good_from_bad(tmp_path: Path, loss: str, deepspeed: dict[str, int]) -> None:
    base = tiny.checkpoint(tmp_path / "base")
    run = train(tmp_path / "run", base, ROWS, loss=loss, deepspeed=deepspeed)
    assert auc(run.validation_scores, np.array([row.pseudo_reward for row in HELD])) > 0.99
    Scorer(run.folder, "float32", None)  # the checkpoint is whole: nothing is missing from it
    assert load_tokenizer(run.folder).chat_template


@pytest.mark.parametrize(("zero_stage", "lora_rank"), [(0, 0), (2, 4)])
def test_bfloat16_with_recomputed_activations_learns(tmp_path: Path, zero_stage: int, lora_rank: int) -> None:
    deepspeed = {"gradient_checkpointing": True, "zero_stage": zero_stage, "lora_rank": lora_rank}
    base = tiny.checkpoint(tmp_path / "base")
    run = train(tmp_path / "run", base, ROWS, dtype="bfloat16", deepspeed=deepspeed)
    assert auc(run.validation_scores, np.array([row.pseudo_reward for row in HELD])) > 0.95


@pytest.mark.parametrize(("source_weight", "wins"), [(1.0, "teacher"), (0.0, "student")])
def test_lambda_decides_which_source_is_believed(tmp_path: Path, source_weight: float, wins: Source) -> None:
    """The two sources contradict each other; the one with all the weight is learnt."""
    base = tiny.checkpoint(tmp_path / "base")
    contradicting = [
        item.model_copy(update={"pseudo_reward": 1 - item.pseudo_reward})
        if item.source == "student"
        else item
        for item in ROWS
    ]
    # Kept at the last update, not the best on student rows, which contradict the teacher's.
    run = train(tmp_path / "run", base, contradicting, source_weight=source_weight, evaluate_every=1000)
    score = auc(run.validation_scores, np.array([item.pseudo_reward for item in HELD]))
    assert score > 0.99 if wins == "teacher" else score < 0.01


def test_a_resumed_run_ends_where_an_unbroken_one_ends(tmp_path: Path) -> None:
    base = tiny.checkpoint(tmp_path / "base")
    random.seed(1)
    with saving.keeping(tmp_path) as (saver, kept):
        whole = train(tmp_path / "whole", base, ROWS, saver=saver)
    after = random.getstate()
    step, state = saving.middle(kept)
    assert 0 < step < len(whole.history)
    random.seed(2)
    resumed = train(tmp_path / "resumed", base, ROWS, resume=state)
    assert random.getstate() == after, "generators go on where they were"
    assert resumed.validation_scores.tolist() == whole.validation_scores.tolist()
    assert resumed.history == whole.history


def test_a_resumed_run_keeps_the_best_weights_of_before(tmp_path: Path) -> None:
    """It learns the contrary of what the validation rows say: early weights stay the best."""
    base = tiny.checkpoint(tmp_path / "base")
    contrary = [item.model_copy(update={"pseudo_reward": 1 - item.pseudo_reward}) for item in ROWS]
    with saving.keeping(tmp_path) as (saver, kept):
        whole = train(tmp_path / "whole", base, contrary, saver=saver)
    step, state = saving.middle(kept)
    measured = [entry for entry in whole.history if "reward/auc_student" in entry]
    best = max(measured, key=lambda entry: entry["reward/auc_student"])
    assert best["step"] < step
    resumed = train(tmp_path / "resumed", base, contrary, resume=state)
    assert resumed.validation_scores.tolist() == pytest.approx(whole.validation_scores.tolist(), abs=1e-4)


@pytest.mark.parametrize("loss", ["bce", "bradley_terry"])
def test_small_passes_packing_and_recomputed_activations_change_no_loss(tmp_path: Path, loss: str) -> None:
    base = tiny.checkpoint(tmp_path / "base")
    mixed = [
        item.model_copy(update={"text": "= a " * (n * 7 % 11) + item.text}) for n, item in enumerate(ROWS)
    ]
    runs = {
        "one padded pass": train(tmp_path / "whole", base, mixed, loss=loss, micro_batch_size=None),
        "sorted passes": train(tmp_path / "sorted", base, mixed, loss=loss, micro_batch_size=4),
        "packed passes": train(
            tmp_path / "packed",
            base,
            mixed,
            loss=loss,
            micro_batch_size=8,
            packing=True,
            deepspeed={"gradient_checkpointing": False},
        ),
    }
    losses = {name: [entry["reward/loss"] for entry in run.history] for name, run in runs.items()}
    assert len(losses["one padded pass"]) > 8
    for name, values in losses.items():
        assert values == pytest.approx(losses["one padded pass"], abs=1e-4), name


def test_more_than_one_node_is_refused_outside_of_a_trainjob(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"several nodes, of which this is none in deepspeed\.nodes.*got 2"):
        train(tmp_path / "run", tmp_path, ROWS, deepspeed={"nodes": 2})


@pytest.mark.parametrize("packing", [False, True])
def test_rows_of_any_length_are_scored_in_order(packing: bool, tmp_path: Path) -> None:
    scorer = Scorer(tiny.checkpoint(tmp_path / "base"), "float32", None)
    torch.manual_seed(0)
    (head,) = (weight for name, weight in scorer.named_parameters() if name.endswith("score.weight"))
    torch.nn.init.normal_(head, std=1.0)
    rows = [[5 + n % 9] * (1 + n * 7 % 60) for n in range(300)]
    read = list[int]()
    embedding = cast(Any, scorer.model).get_input_embeddings()
    with embedding.register_forward_hook(lambda _, ids, __: read.append(ids[0].numel())):
        together = score_rows(scorer, rows, 0, packing=packing)
    assert (sum(read) < 1.05 * sum(map(len, rows))) == packing
    alone = [float(score_rows(scorer, [row], 0)[0]) for row in rows[::10]]
    assert together[::10].tolist() == pytest.approx(alone, abs=1e-5)
