"""Training of the reward model on teacher and student completions, with DeepSpeed."""

import json
import math
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.config import Config, RewardConfig
from limbeck.errors import ConfigError
from limbeck.jobs import Floats, RewardRun
from limbeck.losses import bce, bradley_terry, source_weighted
from limbeck.metrics import auc
from limbeck.progress import Progress
from limbeck.records import LabelledCompletion
from limbeck.saver import StateSaver
from limbeck.trainer import ranks
from limbeck.trainer.engines import device, set_learning_rate, start_process, wrap
from limbeck.trainer.networks import Scorer, last_token_scores, load_tokenizer, save_checkpoint
from limbeck.trainer.packing import check_packable, lines
from limbeck.trainer.randomness import load_random, save_random
from limbeck.trainer.states import load_engine, save_engine
from limbeck.trainer.tokens import joined, pad_right, training_rows

SCORED_ROWS, SCORED_TOKENS = 256, 32_768
"""How much is scored at once: rows, and tokens with their padding."""
# The two halves of one comparison or, with bce, the same row twice: what one loss term needs.
Pair = tuple[int, int]


@dataclass
class Course:
    """How far a training has come: all that a resumed one must know besides the weights."""

    step: int = 0
    best_auc: float = -1.0
    history: list[dict[str, float]] = field(default_factory=list)


def train_reward(
    base: Path,
    training: Sequence[LabelledCompletion],
    validation: Sequence[LabelledCompletion],
    config: Config,
    folder: Path,
    resume_from: Path | None,
    saver: StateSaver,
) -> RewardRun:
    """Train a scorer; keep the weights with the best validation AUC on student rows.

    Args:
        base: The checkpoint it starts from.
        training: Rows of both sources.
        validation: Rows of other prompts.
        config: `reward`, `task`, its base's number type and how that is asked, and the seed are read.
        folder: A folder for the result.
        resume_from: A training state saved by an earlier attempt.
        saver: Takes training states; already entered.

    Returns:
        The result; of several processes the first one of a node has the scores.

    Raises:
        ConfigError: when the processes cannot share a batch evenly.
        StoppedError: after SIGTERM, when the state is stored.
    """
    settings, dtype = config.reward, config.model(config.reward.init).dtype
    start_process(config.seed, settings.deepspeed)
    passes = _passes(settings)
    tokenizer = load_tokenizer(base)
    scorer = Scorer(base, dtype, settings.deepspeed)
    if settings.packing:
        check_packable(scorer.model, "reward.packing")
    # The plan of all updates is drawn at once from the seed, so a resumed run goes on in it.
    plan = list(_plan(training, config))
    engine = wrap(
        scorer,
        settings.deepspeed,
        dtype,
        learning_rate=settings.learning_rate,
        micro_batch=passes.rows,
        accumulation=passes.accumulation,
    )

    def encode(rows: Sequence[LabelledCompletion]) -> list[list[int]]:
        template = config.task.prompt_template
        pairs = [(template.replace("{prompt}", row.prompt), row.text) for row in rows]
        chat = config.chat(settings.init)
        made = training_rows(tokenizer, chat, pairs, settings.max_length, "reward.max_length")
        return [row.ids for row in made]

    ids, validation_ids = encode(training), encode(validation)
    scores_of = _scorer_of_passes(engine, tokenizer.pad_token_id, settings)
    targets = torch.tensor([row.pseudo_reward for row in training])
    is_teacher = torch.tensor([float(row.source == "teacher") for row in training])
    best_folder = folder / "best"
    course = _load(engine, resume_from, best_folder) if resume_from else Course()

    progress = Progress("reward", len(plan), "updates")
    progress.resume(course.step)
    saver.begin(course.step)
    while course.step < len(plan):
        set_learning_rate(engine, _learning_rate(settings, course.step, len(plan)))
        losses = []
        for pairs in _micro_batches(plan[course.step], passes, training, ids):
            loss = _loss(scores_of, pairs, ids, targets, is_teacher, settings)
            engine.backward(loss)
            engine.step()  # DeepSpeed counts: the weights change at the last one
            losses.append(float(loss.detach()))
        course.step += 1
        entry = {"step": float(course.step), "reward/loss": ranks.mean_of(sum(losses) / len(losses))}
        if course.step % settings.evaluate_every == 0 or course.step == len(plan):
            scores = _score_together(scorer, validation_ids, tokenizer.pad_token_id)
            entry["reward/auc_student"] = _student_auc(scores, validation)
            if entry["reward/auc_student"] > course.best_auc:
                course.best_auc = entry["reward/auc_student"]
                if ranks.first_on_node():
                    shutil.rmtree(best_folder, ignore_errors=True)  # states hold links to its files
                save_checkpoint(scorer, tokenizer, best_folder)
        course.history.append(entry)
        progress.add(1, f"loss {entry['reward/loss']:.3f}, best AUC {course.best_auc:.3f}")
        if course.step < len(plan) and saver.due():
            _save(engine, course, best_folder, folder / "states", saver)

    if not ranks.first_on_node():
        return RewardRun(best_folder, np.zeros(0), course.history)
    best = Scorer(best_folder, dtype, None).to(device())
    scores = score_rows(best, validation_ids, tokenizer.pad_token_id)
    return RewardRun(best_folder, scores, course.history)


def _learning_rate(settings: RewardConfig, step: int, num_steps: int) -> float:
    """Linear warm-up over the first part of the updates, then cosine decay to zero."""
    rise = min(1.0, (step + 1) / max(1.0, settings.warmup_ratio * num_steps))
    return settings.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * step / num_steps))


def _loss(
    scores_of: Callable[[list[list[int]]], Tensor],
    pairs: list[Pair],
    ids: list[list[int]],
    targets: Tensor,
    is_teacher: Tensor,
    settings: RewardConfig,
) -> Tensor:
    """The loss of one forward pass, weighted between the sources."""
    good, bad = (torch.tensor(side) for side in zip(*pairs, strict=True))
    if settings.loss == "bce":
        scores_B = scores_of([ids[i] for i in good])
        loss_B = bce(scores_B, targets[good].to(scores_B.device))
    else:
        chosen_B, rejected_B = scores_of([ids[i] for i in torch.cat([good, bad])]).chunk(2)
        loss_B = bradley_terry(chosen_B, rejected_B)
    return source_weighted(loss_B, is_teacher[good].to(loss_B.device), settings.source_weight)


def _scorer_of_passes(
    engine: Any, pad_id: int, settings: RewardConfig
) -> Callable[[list[list[int]]], Tensor]:
    """What gives the scores of the rows of a forward pass."""
    return partial(_scores, engine, pad_id=pad_id, capacity=settings.max_length if settings.packing else None)


def _passes(settings: RewardConfig) -> ranks.Passes:
    """How this process makes its part of an update.

    Raises:
        ConfigError: when the processes cannot share a batch evenly, each pass half from either source.
    """
    passes = ranks.passes(settings.batch_size, settings.micro_batch_size, "reward")
    if passes.rows % 2:
        raise ConfigError(
            f"a batch that {ranks.size()} processes cannot share",
            where="reward.batch_size",
            expected="an even number of rows in each forward pass: half from each source",
            got=str(passes.rows),
            remedy="Change batch_size, micro_batch_size, or the number of processes",
        )
    return passes


def _micro_batches(
    pairs: list[Pair],
    passes: ranks.Passes,
    training: Sequence[LabelledCompletion],
    ids: Sequence[Sequence[int]],
) -> list[list[Pair]]:
    """This process's forward passes of an update, each with the same part of either source.

    So the mean loss of all of them is that of the whole update. By length: the rows of one pass are padded to
    its longest, and those of all processes at the same time are about as long.
    """
    count = passes.accumulation * ranks.size()
    by_length = sorted(pairs, key=lambda pair: max(len(ids[i]) for i in pair))
    sources = [
        [pair for pair in by_length if training[pair[0]].source == source]
        for source in ("teacher", "student")
    ]
    return [
        [
            pair
            for mine in sources
            for pair in mine[len(mine) * number // count : len(mine) * (number + 1) // count]
        ]
        for number in range(ranks.rank(), count, ranks.size())
    ]


def _save(engine: Any, course: Course, best_folder: Path, states: Path, saver: StateSaver) -> None:
    """Save all that is needed to go on from here."""
    state = states / str(course.step)
    save_engine(engine, state / "engine")
    if ranks.first_on_node():
        if best_folder.exists():
            shutil.copytree(best_folder, state / "best", copy_function=os.link)
        (state / "course.json").write_text(json.dumps(vars(course)))
        save_random(state)
    saver.save(course.step, state)


def _load(engine: Any, state: Path, best_folder: Path) -> Course:
    """Go on from what `_save` wrote."""
    load_engine(engine, state / "engine")
    if ranks.first_on_node() and (state / "best").exists():
        shutil.copytree(state / "best", best_folder)
    load_random(state)
    return Course(**json.loads((state / "course.json").read_text()))


def score_rows(scorer: Any, rows: Sequence[Sequence[int]], pad_id: int, *, packing: bool = False) -> Floats:
    """P = sigmoid(score) of each row of token ids, in order; computed in length order to pad little.

    With `packing` rows share lines, and pad less.
    """
    out = np.zeros(len(rows))
    with torch.no_grad():
        for chunk in _by_length(rows):
            scores_B = _scores(
                scorer, [rows[i] for i in chunk], pad_id, capacity=SCORED_TOKENS if packing else None
            )
            out[chunk] = scores_B.sigmoid().cpu().numpy()
    return out


def _score_together(scorer: Any, rows: Sequence[Sequence[int]], pad_id: int) -> Floats:
    """`score_rows` by all processes, the same on each.

    All make the same number of forward passes, as ZeRO-3 gathers weights in each: some score the last rows
    once more.
    """
    chunks = list(_by_length(rows))
    turns = -(-len(chunks) // ranks.size())
    scored: list[tuple[int, float]] = []
    for turn in range(turns):
        chunk = chunks[min(turn * ranks.size() + ranks.rank(), len(chunks) - 1)]
        scores = score_rows(scorer, [rows[i] for i in chunk], pad_id)
        scored += zip(chunk, scores.tolist(), strict=True)
    out = np.zeros(len(rows))
    for place, score in ranks.gather(scored):
        out[place] = score
    return out


def _by_length(rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """The places of all rows, shortest first, in chunks that a GPU holds."""
    chunk: list[int] = []
    for place in sorted(range(len(rows)), key=lambda i: len(rows[i])):
        count = len(chunk) + 1
        if chunk and (count > SCORED_ROWS or count * len(rows[place]) > SCORED_TOKENS):
            yield chunk
            chunk = []
        chunk.append(place)
    if chunk:
        yield chunk


def _scores(scorer: Any, rows: Sequence[Sequence[int]], pad_id: int, *, capacity: int | None) -> Tensor:
    """Scores after the last token of each row, B; with a capacity rows share lines of that many tokens."""
    if capacity is None:
        ids_B_S, mask_B_S = (tensor.to(device()) for tensor in pad_right(rows, pad_id))
        return last_token_scores(scorer(ids_B_S, mask_B_S), mask_B_S)
    laid = lines([len(row) for row in rows], capacity)
    ids_B_S, positions_B_S = laid.filled(joined(rows), pad_id).to(device()), laid.positions_B_S.to(device())
    scores_N: Tensor = scorer(ids_B_S, None, positions_B_S).flatten()[laid.ends_N.to(device())]
    return scores_N


def _student_auc(probabilities: Floats, rows: Sequence[LabelledCompletion]) -> float:
    """AUC on student rows; 0.5 when it is undefined (one class only)."""
    student = np.array([row.source == "student" for row in rows], dtype=bool)
    labels = np.array([row.pseudo_reward for row in rows])
    value = auc(probabilities[student], labels[student])
    return 0.5 if np.isnan(value) else value


def _plan(rows: Sequence[LabelledCompletion], config: Config) -> Iterator[list[Pair]]:
    """The updates: index pairs, half of each update from either source, the smaller source repeated."""
    settings = config.reward
    random = np.random.default_rng(config.seed)
    units = {source: _units(rows, source, settings.loss) for source in ("teacher", "student")}
    present = [items for items in units.values() if items]
    if not present:
        return
    share = settings.batch_size // len(present)
    num_updates = int(np.ceil(settings.num_epochs * max(map(len, present)) / share))
    drawn = [_cycled(items, num_updates * share, random) for items in present]
    for update in range(num_updates):
        yield [pair for items in drawn for pair in items[update * share : (update + 1) * share]]


def _cycled(items: list[Pair], count: int, random: np.random.Generator) -> list[Pair]:
    """`count` items: whole shuffled passes, one after another."""
    passes = -(-count // len(items))
    return [items[i] for _ in range(passes) for i in random.permutation(len(items))][:count]


def _units(rows: Sequence[LabelledCompletion], source: str, loss: str) -> list[Pair]:
    """What one term of the loss needs: a row (twice) for bce, a good and a bad row for Bradley-Terry."""
    mine = [i for i, row in enumerate(rows) if row.source == source]
    if loss == "bce":
        return [(i, i) for i in mine]
    by_prompt: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for i in mine:
        by_prompt[rows[i].prompt_id][rows[i].pseudo_reward < 1].append(i)
    # Each good completion meets one bad one of its prompt, in turn: as many terms as good rows.
    return [
        (good, bads[n % len(bads)])
        for goods, bads in by_prompt.values()
        if bads
        for n, good in enumerate(goods)
    ]
