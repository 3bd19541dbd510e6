"""label: from judged teacher completions to one pseudo label a prompt, and to pseudo-rewards.

First for the teacher: votes make the labels. Later for the student: its completions are compared
with the labels that stand. Of open questions (`task.kind: open`) no answer is compared with another: each
completion goes by its own judgement, the student's too.

No gold answer is near, but for the rule `gold`: an upper bound to compare with takes gold answers as its
labels. The stage refuses them for every other rule, and such labels say in each row what they are.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from limbeck import lease, settings
from limbeck.answers import normalise
from limbeck.answers.groups import representatives
from limbeck.calibration import to_metrics
from limbeck.comparing import Comparer
from limbeck.config import Config, LabelConfig
from limbeck.errors import ConfigError, DataError
from limbeck.labels import (
    Label,
    calibrated_by_vote,
    gold_label,
    is_good,
    is_selected,
    open_label,
    pseudo_label,
    with_validation,
)
from limbeck.manifest import Manifest, code_version, commit, find, input_hashes, stage_uri
from limbeck.progress import say
from limbeck.records import (
    Completion,
    GoldAnswer,
    Judgement,
    LabelledCompletion,
    Prompt,
    PseudoLabel,
)
from limbeck.rows import PartWriter, iter_rows
from limbeck.storage import Store
from limbeck.variants import named


class Labelled(NamedTuple):
    """The two outputs."""

    labels: Manifest
    labelled: Manifest


class Voter(NamedTuple):
    """What of a completion is kept in memory for the vote."""

    completion_id: str
    answer: str | None


def run(
    prompts: Manifest,
    completions: Sequence[Manifest],
    judgements: Sequence[Manifest],
    given_labels: Manifest | None,
    config: Config,
    store: Store,
    work_uri: str,
    *,
    gold: Manifest | None = None,
    variant: str = "",
) -> Labelled:
    """Label completions.

    Args:
        prompts: From `prepare`.
        completions: Shards from `generate`, all of one source.
        judgements: Shards from `judge`; none are needed when the rule does not use them, or labels are given
            and the task is not open.
        given_labels: Labels of an earlier run of this stage, to compare student completions with.
        config: `label`, `task` and the seed are read.
        store: Where rows come from and go to.
        work_uri: Prefix of all results.
        gold: Gold answers from `prepare`, for `label.rule: gold` and no other.
        variant: The variant of an ablation that `config` is of.

    Returns:
        `labels`, one for each prompt, and `labelled`, the completions of labelled prompts with their
        pseudo-reward r~(x, y) = 1 if answer(y) equals the pseudo label of x, else 0. Of an open task it is 1
        if y is judged good.

    Raises:
        ConfigError: when gold answers are given to a rule that must not see them, or missing for `gold`.
        DataError: when judgements are missing or cannot be calibrated, or no prompt got a label.
        LeaseError: when another attempt is at work.
        EngineError: when formulas cannot be compared.
    """
    started = time.monotonic()
    _check_gold(config.label, given_labels, gold)
    inputs = input_hashes(
        prompts=prompts, completions=completions, judgements=judgements, given_labels=given_labels, gold=gold
    )
    config_hash = settings.of_label(config, variant)
    uri = stage_uri(work_uri, "label", inputs, config_hash)
    complete = given_labels or find(store, f"{uri}/labels"), find(store, f"{uri}/labelled")
    if complete[0] and complete[1]:
        say(f"label: already complete, {complete[1].num_rows} completions labelled")
        return Labelled(complete[0], complete[1])

    with lease.held(store, uri, "label") as held, Comparer(config.task) as comparer:
        questions = {row.prompt_id: row.prompt for row in iter_rows(store, [prompts], Prompt)}
        p_correct = {row.completion_id: row.p_correct for row in iter_rows(store, judgements, Judgement)}
        calibration: dict[str, float] = {}
        if given_labels:
            labels = [Label.of(row) for row in iter_rows(store, [given_labels], PseudoLabel)]
        else:
            known = _normal(iter_rows(store, [gold] if gold else [], GoldAnswer), config)
            groups = _by_prompt(
                questions, iter_rows(store, completions, Completion), p_correct, known, config, comparer
            )
            p_correct, calibration = _calibrated(groups, p_correct, config.label)
            labels = _vote(groups, p_correct, known, config)
        reasons = Counter(label.reason for label in labels if label.answer is None)
        by_prompt = {label.prompt_id: label for label in labels}

        counts: Counter[str] = Counter()
        source = ""
        with PartWriter(store, f"{uri}/labelled", LabelledCompletion) as labelled:
            for row in iter_rows(store, completions, Completion):
                counts["read"] += 1
                source = source or row.source
                prompt, label = _of_prompt(row, questions, by_prompt)
                if label.answer is None:
                    counts["unlabelled"] += 1
                    continue
                written = _as_label(row, label.answer, comparer)
                made = _labelled(written, prompt, label, p_correct.get(row.completion_id), config)
                counts["agreeing"] += made.pseudo_reward > 0
                counts["selected"] += made.selected
                labelled.add(made)
        if not labelled.num_rows:
            raise DataError(
                "no prompt got a pseudo label",
                where="stage label",
                expected="at least one",
                got=", ".join(f"{count} with {reason}" for reason, count in reasons.items()),
                remedy="Lower label.min_p_correct, or take a better judge"
                if config.task.is_open
                else "Look at the completions: do they match task.answer_pattern? Lower "
                "label.min_vote_share or label.min_p_correct",
            )
        slow = {"label/slow_comparisons": float(comparer.num_slow)} if config.task.kind == "math" else {}
        coverage = 1 - sum(reasons.values()) / len(labels)
        agreement = counts["agreeing"] / labelled.num_rows
        selected = "" if given_labels else f", {counts['selected']} are selected"
        rewarded = "are good" if config.task.is_open else "agree with it"
        say(
            f"label: {coverage:.1%} of {len(labels)} prompts have a label, {agreement:.1%} of their "
            f"{labelled.num_rows} completions {rewarded}{selected}"
        )

        def write(part: str, out: PartWriter[Any], rows_in: int, rejected: dict[str, int]) -> Manifest:
            return commit(
                store,
                Manifest(
                    stage="label",
                    kind=part,
                    name=named(f"{part}_{source}", variant),
                    uri=f"{uri}/{part}",
                    objects=tuple(out.objects),
                    inputs=inputs,
                    config_hash=config_hash,
                    code_version=code_version("label"),
                    num_input_rows=rows_in,
                    num_rows=out.num_rows,
                    rejected=rejected,
                    metrics={"label/coverage": coverage, "label/agreement": agreement, **slow, **calibration},
                    wall_seconds=time.monotonic() - started,
                ),
                held,
            )

        if given_labels is None:
            with PartWriter(store, f"{uri}/labels", PseudoLabel) as voted:
                for label in labels:
                    voted.add(label.row())
            given_labels = write("labels", voted, len(labels), dict(reasons))
        left_out = {"prompt unlabelled": counts["unlabelled"]} if counts["unlabelled"] else {}
        return Labelled(given_labels, write("labelled", labelled, counts["read"], left_out))


def _check_gold(label: LabelConfig, given_labels: Manifest | None, gold: Manifest | None) -> None:
    """Gold answers are there for the rule `gold` when it makes labels, and for nothing else."""
    wanted = label.rule == "gold" and given_labels is None
    if gold is not None and not wanted:
        raise ConfigError(
            "gold answers must not reach training",
            where="stage label, input gold",
            expected=f"none (label.rule is {label.rule}{', and labels are given' if given_labels else ''})",
            got=gold.uri,
            remedy="Take the input away, or set label.rule: gold for an upper bound",
        )
    if gold is None and wanted:
        raise ConfigError(
            "no gold answers to make labels of",
            where="stage label, input gold",
            expected="the output `gold` of prepare (label.rule is gold)",
            got="none",
            remedy="Run the pipeline distill_gold, or choose another label.rule",
        )


def _normal(rows: Iterable[GoldAnswer], config: Config) -> dict[str, str]:
    """Prompt id -> gold answer in its normal form."""
    return {row.prompt_id: normalise(row.answer, config.task) for row in rows}


def _by_prompt(
    questions: Mapping[str, str],
    rows: Iterable[Completion],
    p_correct: Mapping[str, float],
    gold: Mapping[str, str],
    config: Config,
    comparer: Comparer,
) -> dict[str, list[Voter]]:
    """The teacher completions of each prompt, those with the same answer written alike."""
    by_prompt: dict[str, list[Voter]] = defaultdict(list)
    num_rows = num_unjudged = 0
    for row in rows:
        num_rows += 1
        num_unjudged += row.completion_id not in p_correct
        by_prompt[row.prompt_id].append(Voter(row.completion_id, row.answer))
    if config.label.uses_judgements and num_unjudged:
        raise _unjudged(f"one for each of {num_rows}", f"{len(p_correct)} judgements", config)
    return {
        prompt_id: _grouped(by_prompt.pop(prompt_id, []), gold.get(prompt_id), comparer)
        for prompt_id in questions
    }


def _unjudged(expected: str, got: str, config: Config) -> DataError:
    """What is said of completions that lack a judgement."""
    other = "run the pipeline distill_open" if config.task.is_open else "set label.rule to majority"
    asking = "task.kind is open" if config.task.is_open else f"label.rule is {config.label.rule}"
    return DataError(
        "completions without a judgement",
        where="stage label",
        expected=f"{expected} ({asking})",
        got=got,
        remedy=f"Give the judgements of the same completions, or {other}",
    )


def _calibrated(
    groups: Mapping[str, Sequence[Voter]], p_correct: dict[str, float], config: LabelConfig
) -> tuple[dict[str, float], dict[str, float]]:
    """P(correct) by the votes of other prompts, if that is wanted, and what says how."""
    if config.calibrate == "none":
        return p_correct, {}
    fitted = calibrated_by_vote(groups, p_correct)
    if fitted is None:
        raise DataError(
            "too little to calibrate judgements on",
            where="stage label",
            expected="prompts with several completions, most of which agree (label.calibrate is majority)",
            got=f"{len(groups)} prompts",
            remedy="Raise generate.teacher.samples_per_prompt, or set label.calibrate: none",
        )
    return fitted.p_correct, to_metrics(fitted.lines)


def _vote(
    groups: Mapping[str, Sequence[Voter]],
    p_correct: Mapping[str, float],
    gold: Mapping[str, str],
    config: Config,
) -> list[Label]:
    """One label for each prompt, from its teacher completions."""

    def label(prompt_id: str, voters: Sequence[Voter]) -> Label:
        if config.label.rule == "gold":
            return gold_label(prompt_id, voters, gold.get(prompt_id))
        if config.task.is_open:
            return open_label(prompt_id, voters, p_correct, config.label)
        return pseudo_label(prompt_id, voters, p_correct, config.label)

    labels = [label(prompt_id, voters) for prompt_id, voters in groups.items()]
    return with_validation(labels, config.label.validation_prompts, config.seed)


def _grouped(voters: Sequence[Voter], gold: str | None, comparer: Comparer) -> list[Voter]:
    """The voters of one prompt, with answers that are the same written in one way: so each counts once."""
    stands = representatives((voter.answer for voter in voters), comparer.same, gold)
    return [
        voter if voter.answer is None else voter._replace(answer=stands[voter.answer]) for voter in voters
    ]


def _as_label(row: Completion, label: str, comparer: Comparer) -> Completion:
    """A completion whose answer, if it is the same as its prompt's label, is written as that is."""
    if row.answer is None or not comparer.same(row.answer, label):
        return row
    return row.model_copy(update={"answer": label})


def _of_prompt(
    row: Completion, questions: Mapping[str, str], labels: Mapping[str, Label]
) -> tuple[str, Label]:
    """Prompt and label of a completion."""
    if row.prompt_id in questions and row.prompt_id in labels:
        return questions[row.prompt_id], labels[row.prompt_id]
    raise DataError(
        "a completion of an unknown prompt",
        where=f"completion {row.completion_id}",
        expected="a prompt of the stage's input that has a label, or a reason for none",
        got=repr(row.prompt_id)[:80],
        remedy="Give the prompts and labels that belong to these completions",
    )


def _labelled(
    row: Completion, prompt: str, label: Label, p_correct: float | None, config: Config
) -> LabelledCompletion:
    """A completion with its pseudo-reward.

    Raises:
        DataError: when the answer to an open question was not judged.
    """
    if not config.task.is_open:
        agrees = row.answer == label.answer
    elif p_correct is None:
        raise _unjudged("one for each of them, the student's too", f"none of {row.completion_id}", config)
    else:
        agrees = is_good(row, p_correct, config.label)
    pseudo_reward = float(agrees)
    return LabelledCompletion(
        completion_id=row.completion_id,
        prompt_id=row.prompt_id,
        prompt=prompt,
        source=row.source,
        text=row.text,
        pseudo_reward=pseudo_reward,
        vote_share=label.vote_share,
        selected=is_selected(row, pseudo_reward, p_correct, config.label),
        validation=label.validation,
    )
