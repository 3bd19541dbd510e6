"""label: from judged teacher completions to one pseudo label a prompt, and to pseudo-rewards.

First for the teacher: votes make the labels. Later for the student: its completions are compared
with the labels that stand. No gold answer is near.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from limbeck.config import Config
from limbeck.errors import DataError
from limbeck.labels import is_selected, pseudo_label, with_validation
from limbeck.manifest import Manifest, code_version, commit, digest, find, input_hashes, stage_uri
from limbeck.progress import say
from limbeck.records import Completion, Judgement, LabelledCompletion, Prompt, PseudoLabel, Row
from limbeck.rows import read_all, read_rows, write_rows
from limbeck.storage import Store


class Labelled(NamedTuple):
    """The two outputs."""

    labels: Manifest
    labelled: Manifest


def run(
    prompts: Manifest,
    completions: Sequence[Manifest],
    judgements: Sequence[Manifest],
    given_labels: Manifest | None,
    config: Config,
    store: Store,
    work_uri: str,
) -> Labelled:
    """Label completions.

    Args:
        prompts: From `prepare`.
        completions: Shards from `generate`, all of one source.
        judgements: Shards from `judge`; none are needed when labels are given or the rule is `majority`.
        given_labels: Labels of an earlier run of this stage, to compare student completions with.
        config: `label` and the seed are read.
        store: Where rows come from and go to.
        work_uri: Prefix of all results.

    Returns:
        `labels`, one for each prompt, and `labelled`, the completions of labelled prompts with their
        pseudo-reward r~(x, y) = 1 if answer(y) equals the pseudo label of x, else 0.

    Raises:
        DataError: when judgements are missing, or no prompt got a label.
    """
    started = time.monotonic()
    inputs = input_hashes(
        prompts=prompts, completions=completions, judgements=judgements, given_labels=given_labels
    )
    config_hash = digest([config.seed, config.label.model_dump()])
    uri = stage_uri(work_uri, "label", inputs, config_hash)
    complete = given_labels or find(store, f"{uri}/labels"), find(store, f"{uri}/labelled")
    if complete[0] and complete[1]:
        say(f"label: already complete, {complete[1].num_rows} completions labelled")
        return Labelled(complete[0], complete[1])

    questions = {row.prompt_id: row.prompt for row in read_rows(store, prompts, Prompt)}
    rows = read_all(store, completions, Completion)
    p_correct = {row.completion_id: row.p_correct for row in read_all(store, judgements, Judgement)}
    if given_labels:
        labels = read_rows(store, given_labels, PseudoLabel)
    else:
        labels = _vote(questions, rows, p_correct, config)
    by_prompt = {label.prompt_id: label for label in labels}
    labelled = [
        LabelledCompletion(
            completion_id=row.completion_id,
            prompt_id=row.prompt_id,
            prompt=questions[row.prompt_id],
            source=row.source,
            text=row.text,
            pseudo_reward=float(row.answer == label.answer),
            vote_share=label.vote_share,
            selected=is_selected(row, label, p_correct.get(row.completion_id), config.label),
            validation=label.validation,
        )
        for row in rows
        if (label := by_prompt[row.prompt_id]).answer is not None
    ]
    reasons = Counter(label.reason for label in labels if label.answer is None)
    if not labelled:
        raise DataError(
            "no prompt got a pseudo label",
            where="stage label",
            expected="at least one",
            got=", ".join(f"{count} with {reason}" for reason, count in reasons.items()),
            remedy="Look at the completions: do they match task.answer_pattern? Lower label.min_vote_share "
            "or label.min_p_correct",
        )
    coverage = 1 - sum(reasons.values()) / len(labels)
    agreement = sum(row.pseudo_reward for row in labelled) / len(labelled)
    selected = "" if given_labels else f", {sum(row.selected for row in labelled)} are selected"
    say(
        f"label: {coverage:.1%} of {len(labels)} prompts have a label, {agreement:.1%} of their "
        f"{len(labelled)} completions agree with it{selected}"
    )

    def write(part: str, out: Sequence[Row], rows_in: int, rejected: dict[str, int]) -> Manifest:
        prefix = f"{uri}/{part}"
        return commit(
            store,
            Manifest(
                stage="label",
                kind=part,
                name=f"{part}_{rows[0].source}",
                uri=prefix,
                objects=(write_rows(store, prefix, out),),
                inputs=inputs,
                config_hash=config_hash,
                code_version=code_version("label"),
                num_input_rows=rows_in,
                num_rows=len(out),
                rejected=rejected,
                metrics={"label/coverage": coverage, "label/agreement": agreement},
                wall_seconds=time.monotonic() - started,
            ),
        )

    return Labelled(
        labels=given_labels or write("labels", labels, len(labels), dict(reasons)),
        labelled=write(
            "labelled",
            labelled,
            len(rows),
            {"prompt unlabelled": len(rows) - len(labelled)} if len(rows) > len(labelled) else {},
        ),
    )


def _vote(
    questions: dict[str, str], rows: list[Completion], p_correct: dict[str, float], config: Config
) -> list[PseudoLabel]:
    """One label for each prompt, from its teacher completions."""
    if config.label.rule != "majority" and any(row.completion_id not in p_correct for row in rows):
        raise DataError(
            "completions without a judgement",
            where="stage label",
            expected=f"one for each of {len(rows)} (label.rule is {config.label.rule})",
            got=f"{len(p_correct)} judgements",
            remedy="Give the judgements of the same completions, or set label.rule to majority",
        )
    by_prompt: dict[str, list[Completion]] = defaultdict(list)
    for row in rows:
        by_prompt[row.prompt_id].append(row)
    labels = [
        pseudo_label(prompt_id, by_prompt[prompt_id], p_correct, config.label) for prompt_id in questions
    ]
    return with_validation(labels, config.label.validation_prompts, config.seed)
