"""Pseudo labels of which a known share is wrong: how much of that do reward model and PPO bear?

The completions stay; those of prompts whose label is replaced are compared with the new one.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from limbeck import lease, settings
from limbeck.answers import Same, extract_answer
from limbeck.comparing import Comparer
from limbeck.config import Config
from limbeck.manifest import Manifest, code_version, commit, find, input_hashes, require, stage_uri
from limbeck.progress import say
from limbeck.records import LabelledCompletion, PseudoLabel, row_id
from limbeck.rows import PartWriter, iter_rows, read_rows
from limbeck.storage import Store
from limbeck.variants import named

NOISE = "noise"
"""The reason of a label that was made wrong on purpose."""


class Noisy(NamedTuple):
    """The three outputs."""

    labels: Manifest
    teacher_labelled: Manifest
    student_labelled: Manifest


def run(
    labels: Manifest,
    teacher_labelled: Manifest,
    student_labelled: Manifest,
    config: Config,
    store: Store,
    work_uri: str,
    *,
    variant: str,
) -> Noisy:
    """Make a share of the labels wrong, and label the completions by what they are then.

    Args:
        labels: From `label`.
        teacher_labelled: The teacher's completions from `label`; where a wrong label may come from.
        student_labelled: Those of the student.
        config: `label.noise`, `task` and the seed are read.
        store: Where rows come from and go to.
        work_uri: Prefix of all results.
        variant: The variant of an ablation that `config` is of.

    Returns:
        What `label` gives, in the names of the variant. A completion of a replaced label is not selected:
        nobody judged it right.

    Raises:
        LeaseError: when another attempt is at work.
        EngineError: when formulas cannot be compared.
    """
    started = time.monotonic()
    given = {"labels": labels, "teacher_labelled": teacher_labelled, "student_labelled": student_labelled}
    inputs, config_hash = input_hashes(**given), settings.of_noise(config, variant)
    uri = stage_uri(work_uri, "ablation", inputs, config_hash)
    complete = [found for kind in Noisy._fields if (found := find(store, f"{uri}/{kind}"))]
    if len(complete) == len(Noisy._fields):
        say(f"noise: already complete, {complete[0].num_rows} labels")
        return Noisy(*complete)

    with lease.held(store, uri, "noise") as held, Comparer(config.task) as comparer:
        for manifest in given.values():
            require(store, manifest)

        def write(part: str, out: PartWriter[Any], source: Manifest) -> Manifest:
            return commit(
                store,
                Manifest(
                    stage="ablation",
                    kind=source.kind,
                    name=named(source.name, variant),
                    uri=f"{uri}/{part}",
                    objects=tuple(out.objects),
                    inputs=inputs,
                    config_hash=config_hash,
                    code_version=code_version("ablation"),
                    num_input_rows=source.num_rows,
                    num_rows=out.num_rows,
                    rejected=source.rejected if source is labels else {},
                    wall_seconds=time.monotonic() - started,
                ),
                held,
            )

        answers = _answers(iter_rows(store, [teacher_labelled], LabelledCompletion), config)
        old = read_rows(store, labels, PseudoLabel)
        new = with_noise(old, answers, comparer.same, config.label.noise, config.seed)
        replaced = {row.prompt_id: row.answer or "" for row in new if row.reason == NOISE}
        say(f"noise: {len(replaced)} of {sum(row.answer is not None for row in old)} labels are made wrong")
        with PartWriter(store, f"{uri}/labels", PseudoLabel) as out:
            for label in new:
                out.add(label)
        made = [write("labels", out, labels)]
        for part in Noisy._fields[1:]:
            rows = iter_rows(store, [given[part]], LabelledCompletion)
            with PartWriter(store, f"{uri}/{part}", LabelledCompletion) as labelled:
                for row in _relabelled(rows, replaced, comparer.same, config):
                    labelled.add(row)
            made.append(write(part, labelled, given[part]))
        return Noisy(*made)


def with_noise(
    labels: Sequence[PseudoLabel],
    answers: Mapping[str, Sequence[str]],
    same: Same,
    share: float,
    seed: int,
) -> list[PseudoLabel]:
    """Replace a share of the labels by wrong ones.

    A wrong label is an answer that was given to the same prompt and is another one, as mistakes of votes
    are; where there is none, the label of another prompt. Hashes of seed and prompt choose, so a larger
    share replaces all that a smaller one does, by the same answers.

    Args:
        labels: One a prompt; those without an answer stay.
        answers: Prompt id -> the answers that were given to it.
        same: Whether two answers are the same.
        share: Of the labelled prompts, 0 to 1.
        seed: The run's.

    Returns:
        The labels in their order; replaced ones have the reason `noise`. One stays where every answer is
        the same as its own.
    """
    labelled = sorted(
        (row for row in labels if row.answer is not None),
        key=lambda row: row_id(seed, "noise", row.prompt_id),
    )
    others = list(dict.fromkeys(row.answer for row in labelled if row.answer is not None))
    wrong: dict[str, str] = {}
    for row in labelled[: round(share * len(labelled))]:
        for given in (sorted(set(answers.get(row.prompt_id, ()))), others):
            start = int(row_id(seed, "wrong", row.prompt_id), 16) % max(1, len(given))
            turned = [*given[start:], *given[:start]]
            found = next((item for item in turned if not same(item, row.answer or "")), None)
            if found is not None:
                wrong[row.prompt_id] = found
                break
    return [
        row.model_copy(update={"answer": wrong[row.prompt_id], "reason": NOISE})
        if row.prompt_id in wrong
        else row
        for row in labels
    ]


def _answers(rows: Iterator[LabelledCompletion], config: Config) -> dict[str, list[str]]:
    """Prompt id -> the answers of its completions."""
    found: dict[str, list[str]] = {}
    for row in rows:
        answer = extract_answer(row.text, config.task)
        if answer is not None:
            found.setdefault(row.prompt_id, []).append(answer)
    return found


def _relabelled(
    rows: Iterator[LabelledCompletion], replaced: Mapping[str, str], same: Same, config: Config
) -> Iterator[LabelledCompletion]:
    """The completions with the pseudo-rewards of the new labels."""
    for row in rows:
        if row.prompt_id not in replaced:
            yield row
            continue
        answer = extract_answer(row.text, config.task)
        agrees = answer is not None and same(answer, replaced[row.prompt_id])
        yield row.model_copy(update={"pseudo_reward": float(agrees), "selected": False})
