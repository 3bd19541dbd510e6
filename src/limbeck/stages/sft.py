"""sft: the student is warmed up on the teacher's completions, the selected ones or all."""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from limbeck import lease
from limbeck import settings as deciding
from limbeck.checkpoints import load_state, save_state
from limbeck.config import Config
from limbeck.errors import DataError
from limbeck.jobs import SftRun
from limbeck.manifest import Manifest, code_version, commit, find, input_hashes, require, stage_uri
from limbeck.progress import say
from limbeck.records import LabelledCompletion, Source
from limbeck.rows import read_rows
from limbeck.saver import Saver, Upload
from limbeck.storage import Store
from limbeck.thinking import without_thinking
from limbeck.variants import named

Selection = Literal["selected", "all"]


def run(
    labelled: Manifest,
    base_hash: str,
    fetch_base: Callable[[Path], Path],
    train: Callable[..., SftRun],
    config: Config,
    store: Store,
    work_uri: str,
    *,
    selection: Selection,
    role: Source = "student",
    variant: str = "",
) -> Manifest:
    """Fine-tune the student, or for an ablation the teacher.

    Args:
        labelled: Teacher completions from `label`.
        base_hash: What stands for the weights in the output's key.
        fetch_base: Brings the model's checkpoint into a folder.
        train: `limbeck.trainer.sft.train_sft`, or `limbeck.torchrun.train_sft` on a node.
        config: `sft`, `student`, `task` and the seed are read.
        store: Where rows come from and checkpoints go.
        work_uri: Prefix of all results.
        selection: `selected` completions (the method), or `all` (the row to compare with).
        role: Whose weights are tuned; those of the teacher are named `teacher_selected` or `teacher_all`.
        variant: The variant of an ablation that `config` is of.

    Raises:
        LeaseError: when another attempt is at work.
        DataError: when no completion is left to learn from.
    """
    started = time.monotonic()
    name = named(f"{'sft' if role == 'student' else role}_{selection}", variant)
    inputs = input_hashes(labelled=labelled) | {"student": base_hash}
    config_hash = deciding.of_sft(config, selection, role, variant)
    uri = stage_uri(work_uri, "sft", inputs, config_hash)
    if complete := find(store, uri):
        say(f"sft({selection}): already complete")
        return complete

    with lease.held(store, uri, f"sft({selection})") as held:
        rows = _rows(labelled, config, store, selection)

        def upload(step: int, folder: Path) -> None:
            save_state(store, uri, step, folder, config.sft.deepspeed.keep_states, held.confirm)

        with _trained(rows.kept, fetch_base, train, config, store, uri, upload, selection, role) as result:
            lines = [json.dumps(entry) for entry in result.history]
            (result.folder / "history.jsonl").write_text("\n".join(lines) + "\n")
            objects = store.write_folder(result.folder, uri)
        metrics = {"sft/loss": result.history[-1]["sft/loss"]} if result.history else {}
        return commit(
            store,
            Manifest(
                stage="sft",
                kind="checkpoint",
                name=name,
                uri=uri,
                objects=objects,
                inputs=inputs,
                config_hash=config_hash,
                code_version=code_version("sft"),
                num_input_rows=rows.num_read,
                num_rows=len(rows.kept),
                rejected=rows.left_out,
                metrics=metrics,
                wall_seconds=time.monotonic() - started,
            ),
            held,
        )


def follow(
    labelled: Manifest,
    base_hash: str,
    fetch_base: Callable[[Path], Path],
    train: Callable[..., SftRun],
    config: Config,
    store: Store,
    work_uri: str,
    *,
    selection: Selection,
    role: Source = "student",
    variant: str = "",
) -> None:
    """Do the part of a node that does not lead: it trains with the others, and writes nothing to the store.

    Args and errors are those of `run`.
    """
    inputs = input_hashes(labelled=labelled) | {"student": base_hash}
    uri = stage_uri(work_uri, "sft", inputs, deciding.of_sft(config, selection, role, variant))
    if find(store, uri):
        return
    rows = _rows(labelled, config, store, selection)
    with _trained(rows.kept, fetch_base, train, config, store, uri, _nothing, selection, role):
        pass


class _Rows(NamedTuple):
    """What is learnt from."""

    kept: list[LabelledCompletion]
    num_read: int
    left_out: dict[str, int]
    """By reason."""


def _rows(labelled: Manifest, config: Config, store: Store, selection: Selection) -> _Rows:
    """Read the completions and select.

    Raises:
        DataError: when no completion is left to learn from.
    """
    require(store, labelled)
    rows = read_rows(store, labelled, LabelledCompletion)
    wanted = [row for row in rows if not row.validation and (row.selected or selection == "all")]
    # A thought that was cut off has no answer to learn.
    kept = [row for row in wanted if not config.task.strip_thinking or without_thinking(row.text)]
    if not kept:
        raise DataError(
            "no completion was selected",
            where=labelled.uri,
            expected="at least one",
            got=f"{len(rows)} labelled, none judged right and agreeing with its label",
            remedy="Lower label.min_p_correct, or use label.rule: majority",
        )
    say(f"sft({selection}): {len(kept)} of {len(rows)} completions")
    return _Rows(kept, len(rows), _left_out(rows, len(wanted), len(kept)))


@contextmanager
def _trained(
    rows: list[LabelledCompletion],
    fetch_base: Callable[[Path], Path],
    train: Callable[..., SftRun],
    config: Config,
    store: Store,
    uri: str,
    upload: Upload,
    selection: Selection,
    role: Source,
) -> Iterator[SftRun]:
    """Train, from the newest state; the result's files are there inside the block."""
    template = config.task.prompt_template
    with (
        tempfile.TemporaryDirectory() as scratch,
        Saver(f"sft({selection})", config.sft.deepspeed.checkpoint_seconds, upload) as saver,
    ):
        folder = Path(scratch)
        state = load_state(store, uri, folder / "resume")
        yield train(
            base=fetch_base(folder / "base"),
            pairs=[(template.replace("{prompt}", row.prompt), row.text) for row in rows],
            config=config if role == "student" else _as_student(config),
            folder=folder,
            name=f"sft({selection})",
            resume_from=state.folder if state else None,
            saver=saver,
        )


def _nothing(step: int, folder: Path) -> None:
    """The node that leads uploads the states."""


def _as_student(config: Config) -> Config:
    """The settings with the teacher in the student's place: the trainer tunes whoever stands there."""
    return config.model_copy(update={"student": config.teacher})


def _left_out(rows: list[LabelledCompletion], num_wanted: int, num_kept: int) -> dict[str, int]:
    """How many completions are not trained on, by reason."""
    validation = sum(row.validation for row in rows)
    reasons = {
        "kept for validation": validation,
        "not selected": len(rows) - num_wanted - validation,
        "thinking without an answer": num_wanted - num_kept,
    }
    return {reason: count for reason, count in reasons.items() if count}
