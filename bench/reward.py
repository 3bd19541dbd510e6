"""The reward model's trainer beside padded batches as they come, on mixed lengths; and how its cost grows.

    python -m bench.reward --json FILE [--model demo|smollm2|all] [--parts packed]

Each side is a call from a checkpoint and rows to a new checkpoint and the scores of held-out rows. Both make
the same updates of the same rows, on DeepSpeed, in float32 on the same threads; the other side pads the rows
of each pass as they come. Losses must agree, or the run fails. Models: see bench/sft.py.
"""

import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bench.measured import Comparison, Growth
from bench.trainings import ModelName, Size, Trained, checkpoint, compared, grown, pairs, peak_mib, run
from limbeck.config import Config, parse_config
from limbeck.jobs import Floats
from limbeck.losses import bce, source_weighted
from limbeck.metrics import auc
from limbeck.records import LabelledCompletion
from limbeck.trainer import networks, ranks, reward
from limbeck.trainer.engines import set_learning_rate, start_process, wrap
from limbeck.trainer.tokens import pad_right, training_rows
from tests import saving

SIZES: dict[ModelName, Size] = {
    "demo": Size(rows=512, batch=64, median=24, longest=256),
    "smollm2": Size(rows=64, batch=8, median=40, longest=256),
}
FEW = Size(rows=128, batch=64, median=24, longest=256)
PASSED = 8
"""Rows of a forward pass by default."""
HELD = 16
"""Rows that are held out, beside those that are trained on."""
GOOD, BAD = "a a a a", "b b b b"
"""How a good and a bad completion end: a reward model can learn it."""
RATES: dict[ModelName, float] = {"demo": 1e-3, "smollm2": 1e-5}


def rows(model: ModelName, size: Size) -> list[LabelledCompletion]:
    """Good and bad rows of both sources."""
    texts = pairs(model, size._replace(rows=size.rows + HELD))
    return [
        LabelledCompletion(
            completion_id=str(number),
            prompt_id=str(number),
            prompt=prompt,
            source="student" if number % 2 else "teacher",
            text=f"{text} {BAD if number // 2 % 2 else GOOD}",
            pseudo_reward=float(not number // 2 % 2),
            vote_share=1.0,
            selected=True,
            validation=number >= size.rows,
        )
        for number, (prompt, text) in enumerate(texts)
    ]


def settings(model: ModelName, size: Size, passed: int | None, packing: bool) -> Config:
    """Defaults, but for the learning rate and what the size says; one evaluation, at the end."""
    reward = {
        "batch_size": size.batch,
        "micro_batch_size": passed,
        "max_length": size.longest,
        "packing": packing,
        "learning_rate": RATES[model],
        "evaluate_every": 10**9,
        "deepspeed": {"zero_stage": 0},  # one process: nothing to split
    }
    return parse_config({"student": {"dtype": "float32"}, "reward": reward})


def ours(base: Path, given: list[LabelledCompletion], config: Config) -> Trained:
    """Limbeck's trainer."""
    training, held = _split(given)
    with tempfile.TemporaryDirectory() as scratch:
        started = time.monotonic()
        made = reward.train_reward(base, training, held, config, Path(scratch), None, saving.no_saver())
        seconds = time.monotonic() - started
    losses = [entry["reward/loss"] for entry in made.history]
    return Trained(
        seconds, _tokens(base, training, config), losses, peak_mib(), _auc(made.validation_scores, held)
    )


def theirs(base: Path, given: list[LabelledCompletion], config: Config) -> Trained:
    """A loop over padded batches: nothing of it looks at lengths."""
    training, held = _split(given)
    asked = config.reward
    with tempfile.TemporaryDirectory() as scratch:
        started = time.monotonic()
        start_process(config.seed, asked.deepspeed)
        passes = ranks.passes(asked.batch_size, asked.micro_batch_size, "reward")
        tokenizer = networks.load_tokenizer(base)
        scorer = networks.Scorer(base, "float32", asked.deepspeed)
        engine = wrap(
            scorer,
            asked.deepspeed,
            "float32",
            learning_rate=asked.learning_rate,
            micro_batch=passes.rows,
            accumulation=passes.accumulation,
        )
        ids, held_ids = _encoded(base, training, config), _encoded(base, held, config)
        plan, losses = list(reward._plan(training, config)), []
        for step, update in enumerate(plan):
            set_learning_rate(engine, reward._learning_rate(asked, step, len(plan)))
            total = 0.0
            for first in range(passes.accumulation):
                places = [place for place, _ in update[first :: passes.accumulation]]
                ids_B_S, mask_B_S = pad_right([ids[place] for place in places], tokenizer.pad_token_id)
                scores_B = networks.last_token_scores(engine(ids_B_S, mask_B_S), mask_B_S)
                targets_B = torch.tensor([training[place].pseudo_reward for place in places])
                is_teacher_B = torch.tensor([float(training[place].source == "teacher") for place in places])
                loss = source_weighted(bce(scores_B, targets_B), is_teacher_B, asked.source_weight)
                engine.backward(loss)
                engine.step()
                total += float(loss.detach())
            losses.append(total / passes.accumulation)
        folder = networks.save_checkpoint(scorer, tokenizer, Path(scratch) / "best")
        reward.score_rows(scorer, held_ids, tokenizer.pad_token_id)
        best = networks.Scorer(folder, "float32", None)
        scores = reward.score_rows(best, held_ids, tokenizer.pad_token_id)
        seconds = time.monotonic() - started
    return Trained(seconds, _tokens(base, training, config), losses, peak_mib(), _auc(scores, held))


def _split(given: list[LabelledCompletion]) -> tuple[list[LabelledCompletion], list[LabelledCompletion]]:
    """What is trained on, and what is held out."""
    return [row for row in given if not row.validation], [row for row in given if row.validation]


def _encoded(base: Path, given: list[LabelledCompletion], config: Config) -> list[list[int]]:
    texts, tokenizer = [(row.prompt, row.text) for row in given], networks.load_tokenizer(base)
    made = training_rows(
        tokenizer, config.chat("student"), texts, config.reward.max_length, "reward.max_length"
    )
    return [row.ids for row in made]


def _tokens(base: Path, given: list[LabelledCompletion], config: Config) -> int:
    return sum(map(len, _encoded(base, given, config)))


def _auc(scores: Floats, held: list[LabelledCompletion]) -> float:
    return auc(scores, np.array([row.pseudo_reward for row in held]))


def compare(model: ModelName, packed: bool, rounds: int) -> Comparison:
    """Packed, in one pass an update; or with defaults. The other side makes as many passes."""
    size, given, passed = SIZES[model], rows(model, SIZES[model]), None if packed else PASSED
    with tempfile.TemporaryDirectory() as scratch:
        base = checkpoint(model, Path(scratch) / "base")
        measured, note = compared(
            partial(ours, base, given, settings(model, size, passed, packed)),
            partial(theirs, base, given, settings(model, size, passed, False)),
            rounds,
        )
    return Comparison(
        what="reward, packed, one pass an update" if packed else "reward, defaults: padded passes by length",
        against="padded batches as they come",
        model=model,
        unit="tokens/s",
        goal=1.5,
        goal_is="at least",
        pairs=measured,
        note=f"{model}: {note}",
    )


def growth() -> tuple[Growth, ...]:
    """Of the demo's model, packed."""
    with tempfile.TemporaryDirectory() as scratch:
        base = checkpoint("demo", Path(scratch) / "base")
        return grown(
            "reward",
            "demo",
            FEW,
            lambda size: partial(ours, base, rows("demo", size), settings("demo", size, None, True)),
        )


if __name__ == "__main__":
    run(__doc__, compare, growth)
