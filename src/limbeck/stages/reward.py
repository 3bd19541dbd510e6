"""reward: a reward model is trained on labelled teacher and student completions.

Evaluated on prompts it was not trained on; a model that cannot tell good from bad stops the run
before PPO spends anything on it.
"""

import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from limbeck import lease
from limbeck import settings as deciding
from limbeck.checkpoints import load_state, save_state
from limbeck.config import Config
from limbeck.errors import DataError, GateError
from limbeck.jobs import Floats, RewardRun
from limbeck.manifest import Manifest, code_version, commit, find, input_hashes, require, stage_uri
from limbeck.metrics import (
    RELIABILITY,
    Reliability,
    ReliabilityBin,
    auc,
    correlation,
    expected_calibration_error,
    pair_accuracy,
    reliability,
)
from limbeck.progress import say
from limbeck.records import LabelledCompletion
from limbeck.rows import read_rows
from limbeck.saver import Saver, Upload
from limbeck.storage import Store
from limbeck.variants import named

SOURCES = ("teacher", "student")
VOTE_SHARE_BINS = ((0.0, 0.5), (0.5, 0.75), (0.75, 1.0))


def run(
    teacher_labelled: Manifest,
    student_labelled: Manifest,
    base_hash: str,
    fetch_base: Callable[[Path], Path],
    train: Callable[..., RewardRun],
    config: Config,
    store: Store,
    work_uri: str,
    *,
    variant: str = "",
) -> Manifest:
    """Train and evaluate the reward model.

    Args:
        teacher_labelled: Teacher completions with pseudo-rewards.
        student_labelled: Those of the warmed-up student.
        base_hash: What stands for the starting weights in the output's key.
        fetch_base: Brings the starting checkpoint (`reward.init`) into a folder.
        train: `limbeck.trainer.reward.train_reward`, or `limbeck.torchrun.train_reward` on a node.
        config: `reward`, `task`, both models' dtypes and the seed are read.
        store: Where rows come from and checkpoints go.
        work_uri: Prefix of all results.
        variant: The variant of an ablation that `config` is of.

    Returns:
        The checkpoint; its metrics hold AUC, pair accuracy, calibration error and correlation with
        length by source and by vote share, all on held-out prompts. `reliability.json` beside the weights
        holds the bins of the reliability diagram by source.

    Raises:
        LeaseError: when another attempt is at work.
        DataError: when a side has no rows, or labels of one class alone.
        GateError: when the AUC on student completions is below `reward.min_auc`.
    """
    started = time.monotonic()
    inputs = input_hashes(teacher_labelled=teacher_labelled, student_labelled=student_labelled) | {
        "base": base_hash
    }
    config_hash = deciding.of_reward(config, variant)
    uri = stage_uri(work_uri, "reward", inputs, config_hash)
    if complete := find(store, uri):
        say(f"reward: already complete, AUC {complete.metrics.get('reward/auc_student', math.nan):.3f}")
        return _passed(complete, config)

    with lease.held(store, uri, "reward") as held:
        rows = _rows(teacher_labelled, student_labelled, store)

        def upload(step: int, folder: Path) -> None:
            save_state(store, uri, step, folder, config.reward.deepspeed.keep_states, held.confirm)

        with _trained(rows, fetch_base, train, config, store, uri, upload) as result:
            lines = [json.dumps(entry) for entry in result.history]
            (result.folder / "history.jsonl").write_text("\n".join(lines) + "\n")
            measured = Reliability(root=_reliability(result.validation_scores, rows.validation))
            (result.folder / RELIABILITY).write_text(measured.model_dump_json(indent=1) + "\n")
            objects = store.write_folder(result.folder, uri)
        metrics = _metrics(result.validation_scores, rows.validation)
        for source in SOURCES:
            shown = [metrics.get(f"reward/{name}_{source}", math.nan) for name in ("auc", "pair_accuracy")]
            say(f"reward: on {source} completions AUC {shown[0]:.3f}, pair accuracy {shown[1]:.3f}")
        manifest = commit(
            store,
            Manifest(
                stage="reward",
                kind="reward_model",
                name=named("reward", variant),
                uri=uri,
                objects=objects,
                inputs=inputs,
                config_hash=config_hash,
                code_version=code_version("reward"),
                num_input_rows=len(rows.training) + len(rows.validation),
                num_rows=len(rows.training),
                rejected={"kept for validation": len(rows.validation)},
                metrics=metrics,
                wall_seconds=time.monotonic() - started,
            ),
            held,
        )
    return _passed(manifest, config)


def follow(
    teacher_labelled: Manifest,
    student_labelled: Manifest,
    base_hash: str,
    fetch_base: Callable[[Path], Path],
    train: Callable[..., RewardRun],
    config: Config,
    store: Store,
    work_uri: str,
    *,
    variant: str = "",
) -> None:
    """Do the part of a node that does not lead: it trains with the others, and writes nothing to the store.

    Args and errors are those of `run`.
    """
    inputs = input_hashes(teacher_labelled=teacher_labelled, student_labelled=student_labelled) | {
        "base": base_hash
    }
    uri = stage_uri(work_uri, "reward", inputs, deciding.of_reward(config, variant))
    if find(store, uri):
        return
    rows = _rows(teacher_labelled, student_labelled, store)
    with _trained(rows, fetch_base, train, config, store, uri, _nothing):
        pass


class _Rows(NamedTuple):
    """What is learnt from, and what it is measured on."""

    training: list[LabelledCompletion]
    validation: list[LabelledCompletion]
    """Of other prompts."""


def _rows(teacher_labelled: Manifest, student_labelled: Manifest, store: Store) -> _Rows:
    """Read the completions of both sources.

    Raises:
        DataError: when a side has no rows, or labels of one class alone.
    """
    rows: list[LabelledCompletion] = []
    for labelled in (teacher_labelled, student_labelled):
        require(store, labelled)
        rows += read_rows(store, labelled, LabelledCompletion)
    training = [row for row in rows if not row.validation]
    validation = [row for row in rows if row.validation]
    for part, side in (("training", training), ("validation", validation)):
        if len({row.pseudo_reward for row in side}) < 2:
            raise DataError(
                f"the {part} rows of the reward model are all alike",
                where=teacher_labelled.uri,
                expected="both good and bad completions",
                got=f"{len(side)} rows of one kind or none",
                remedy="Use more prompts, more samples, or higher temperatures",
            )
    say(f"reward: {len(training)} rows to train on, {len(validation)} of other prompts to evaluate on")
    return _Rows(training, validation)


@contextmanager
def _trained(
    rows: _Rows,
    fetch_base: Callable[[Path], Path],
    train: Callable[..., RewardRun],
    config: Config,
    store: Store,
    uri: str,
    upload: Upload,
) -> Iterator[RewardRun]:
    """Train, from the newest state; the result's files are there inside the block."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        Saver("reward", config.reward.deepspeed.checkpoint_seconds, upload) as saver,
    ):
        folder = Path(scratch)
        state = load_state(store, uri, folder / "resume")
        yield train(
            base=fetch_base(folder / "base"),
            training=rows.training,
            validation=rows.validation,
            config=config,
            folder=folder,
            resume_from=state.folder if state else None,
            saver=saver,
        )


def _nothing(step: int, folder: Path) -> None:
    """The node that leads uploads the states."""


def _metrics(scores: Floats, rows: list[LabelledCompletion]) -> dict[str, float]:
    """Quality on held-out prompts; what is undefined (one class alone) is left out."""
    labels = np.array([row.pseudo_reward for row in rows])
    lengths = np.array([float(len(row.text)) for row in rows])
    prompts = np.array([row.prompt_id for row in rows])
    shares = np.array([row.vote_share for row in rows])
    groups = {source: np.array([row.source == source for row in rows], dtype=bool) for source in SOURCES} | {
        f"vote_share_{low:g}_{high:g}": (shares > low) & (shares <= high) for low, high in VOTE_SHARE_BINS
    }
    metrics: dict[str, float] = {}
    for group, mine in groups.items():
        metrics |= {
            f"reward/num_rows_{group}": float(mine.sum()),
            f"reward/auc_{group}": auc(scores[mine], labels[mine]),
            f"reward/pair_accuracy_{group}": pair_accuracy(scores[mine], labels[mine], list(prompts[mine])),
            f"reward/ece_{group}": expected_calibration_error(scores[mine], labels[mine]),
            f"reward/score_length_correlation_{group}": correlation(scores[mine], lengths[mine]),
        }
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _reliability(scores: Floats, rows: list[LabelledCompletion]) -> dict[str, tuple[ReliabilityBin, ...]]:
    """Predicted P(good) against the share that is good, by source."""
    labels = np.array([row.pseudo_reward for row in rows])
    mine = {source: np.array([row.source == source for row in rows], dtype=bool) for source in SOURCES}
    return {source: reliability(scores[some], labels[some]) for source, some in mine.items()}


def _passed(manifest: Manifest, config: Config) -> Manifest:
    """The quality gate before PPO."""
    value = manifest.metrics.get("reward/auc_student", 0.0)
    if value < config.reward.min_auc:
        raise GateError(
            "the reward model is too weak for PPO",
            where=manifest.uri,
            expected=f"AUC on student completions of at least {config.reward.min_auc} (reward.min_auc)",
            got=f"{value:.3f}",
            remedy="Give it more prompts or epochs, set reward.init: teacher, or lower the gate",
        )
    return manifest
