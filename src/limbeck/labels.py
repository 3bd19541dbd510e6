"""Pseudo labels: one answer a prompt, from the teacher's own judged answers and without gold."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, Self

import numpy as np

from limbeck.calibration import Line, calibrated, cross_fitted, fold
from limbeck.config import LabelConfig
from limbeck.records import Completion, PseudoLabel, row_id

GOLD = "gold answer"
"""The reason of a label that is no pseudo label."""


class Label(NamedTuple):
    """A pseudo label in memory, where there may be a million: far smaller than the row `PseudoLabel`."""

    prompt_id: str
    answer: str | None
    vote_share: float
    num_votes: int
    reason: str
    validation: bool

    @classmethod
    def of(cls, row: PseudoLabel) -> Self:
        """The label that a row holds."""
        return cls(**row.model_dump())

    def row(self) -> PseudoLabel:
        """The row that holds this label."""
        return PseudoLabel(**self._asdict())


class Answered(Protocol):
    """What of a completion a vote looks at: a `Completion`, or less where there are a million."""

    @property
    def completion_id(self) -> str:
        """Which completion."""

    @property
    def answer(self) -> str | None:
        """The final answer found in it, or None."""


def pseudo_label(
    prompt_id: str,
    completions: Sequence[Answered],
    p_correct: Mapping[str, float],
    config: LabelConfig,
) -> Label:
    """Vote one prompt's label.

    `majority` counts every completion that has an answer (self-consistency, arXiv 2203.11171);
    `judged_majority` counts those the teacher judged correct; `judge` takes the answer of the best
    judged completion; `gold` holds no vote, see `gold_label`. A tie, or a winner below `min_vote_share`,
    leaves the prompt unlabelled: that decision is ours, the paper only reports such prompts (arXiv
    2502.19557, Fig. 3).

    Args:
        prompt_id: The prompt.
        completions: All teacher completions of this prompt.
        p_correct: Completion id -> the teacher's P(correct), calibrated where that is wanted; not needed
            for `majority`.
        config: Rule and thresholds.

    Returns:
        The label; its vote share is the winner's share of all completions that voted.
    """
    voters = [item for item in completions if item.answer is not None]
    if config.uses_judgements:
        voters = [item for item in voters if p_correct[item.completion_id] >= config.min_p_correct]
    if not voters:
        return _unlabelled(prompt_id, "no votes")
    if config.rule == "judge":
        best = max(voters, key=lambda item: (p_correct[item.completion_id], item.completion_id))
        share = sum(item.answer == best.answer for item in voters) / len(voters)
        return _labelled(prompt_id, best.answer, share, len(voters))

    votes = Counter(item.answer for item in voters).most_common(2)
    (answer, count), share = votes[0], votes[0][1] / len(voters)
    if len(votes) > 1 and votes[1][1] == count:
        return _unlabelled(prompt_id, "tie", share, len(voters))
    if share < config.min_vote_share:
        return _unlabelled(prompt_id, "low vote share", share, len(voters))
    return _labelled(prompt_id, answer, share, len(voters))


def open_label(
    prompt_id: str, completions: Sequence[Answered], p_correct: Mapping[str, float], config: LabelConfig
) -> Label:
    """The best judged completion of an open prompt: no two answers are the same, so nothing is voted on.

    Args:
        prompt_id: The prompt.
        completions: All teacher completions of this prompt.
        p_correct: Completion id -> the teacher's P(good).
        config: `min_p_correct` is read.

    Returns:
        The label; its vote share is the share of the completions that are good, its votes their number. The
        prompt stays unlabelled where none is good.
    """
    good = [item for item in completions if is_good(item, p_correct[item.completion_id], config)]
    if not good:
        return _unlabelled(prompt_id, "none judged good")
    best = max(good, key=lambda item: (p_correct[item.completion_id], item.completion_id))
    return _labelled(prompt_id, best.answer, len(good) / len(completions), len(good))


def is_good(completion: Answered, p_correct: float, config: LabelConfig) -> bool:
    """Whether the answer to an open prompt is there and judged good: it earns 1, else 0."""
    return completion.answer is not None and p_correct >= config.min_p_correct


def gold_label(prompt_id: str, completions: Sequence[Answered], gold: str | None) -> Label:
    """The known answer as a label: an upper bound for what any rule without gold could give.

    Its reason says so in every row: whoever reads it later can tell it from a pseudo label.

    Args:
        prompt_id: The prompt.
        completions: All teacher completions of this prompt, with answers that are gold's written alike.
        gold: The known answer in its normal form, or None.

    Returns:
        The label; its vote share is the share of the answers that equal gold.
    """
    answers = [item.answer for item in completions if item.answer is not None]
    if gold is None:
        return _unlabelled(prompt_id, "no gold answer", votes=len(answers))
    share = answers.count(gold) / len(answers) if answers else 0.0
    return _labelled(prompt_id, gold, share, len(answers))._replace(reason=GOLD)


def peer_agreement(completions: Sequence[Answered]) -> list[bool | None]:
    """Whether each completion has the answer that most others of its prompt have.

    The completion itself has no vote, or it would agree with itself.

    Args:
        completions: Of one prompt, with equal answers written alike.

    Returns:
        One for each; None where the others have no single winner. No answer agrees with none.
    """
    counts: Counter[str | None] = Counter(item.answer for item in completions if item.answer is not None)

    def agrees(answer: str | None) -> bool | None:
        ranked = (counts - Counter({answer: 1})).most_common(2)
        if not ranked or (len(ranked) > 1 and ranked[0][1] == ranked[1][1]):
            return None
        return answer == ranked[0][0]

    by_answer = {answer: agrees(answer) for answer in {item.answer for item in completions}}
    return [by_answer[item.answer] for item in completions]


class Calibrated(NamedTuple):
    """What `calibrated_by_vote` gives."""

    p_correct: dict[str, float]
    """By completion id."""
    lines: tuple[Line, ...]
    """One for each part of the prompts."""


def calibrated_by_vote(
    groups: Mapping[str, Sequence[Answered]], p_correct: Mapping[str, float]
) -> Calibrated | None:
    """P(correct) calibrated against the vote of the other completions: `label.calibrate: majority`.

    Args:
        groups: Prompt id -> its teacher completions, with equal answers written alike.
        p_correct: Completion id -> what the judge says; completions without it are left out.

    Returns:
        Calibrated P, or None where there is nothing to fit it on, see `cross_fitted`.
    """
    ids: list[str] = []
    agreement: list[bool | None] = []
    folds: list[int] = []
    for prompt_id, completions in groups.items():
        for item, agrees in zip(completions, peer_agreement(completions), strict=True):
            if item.completion_id in p_correct:
                ids.append(item.completion_id)
                agreement.append(agrees)
                folds.append(fold(prompt_id))
    said = np.array([p_correct[item] for item in ids], dtype=np.float64)
    lines = cross_fitted(said, agreement, folds)
    if lines is None:
        return None
    return Calibrated(dict(zip(ids, calibrated(said, lines, folds).tolist(), strict=True)), lines)


def with_validation(labels: Sequence[Label], num_prompts: int, seed: int) -> list[Label]:
    """Mark the labelled prompts that are kept out of training, chosen by a hash of seed and prompt.

    Args:
        labels: One a prompt, none of them marked.
        num_prompts: How many are kept out; at most half of the labelled ones.
        seed: The run's.
    """
    labelled = sorted(
        (label.prompt_id for label in labels if label.answer is not None),
        key=lambda prompt_id: row_id(seed, "validation", prompt_id),
    )
    chosen = set(labelled[: min(num_prompts, len(labelled) // 2)])
    return [label._replace(validation=True) if label.prompt_id in chosen else label for label in labels]


def is_selected(
    completion: Completion, pseudo_reward: float, p_correct: float | None, config: LabelConfig
) -> bool:
    """Whether a teacher completion is good enough to be learnt from.

    It must have earned its pseudo-reward, be judged correct where the rule uses judgements, and have ended by
    itself (a completion that was cut off teaches cutting off).
    """
    judged = not config.uses_judgements or (p_correct is not None and p_correct >= config.min_p_correct)
    return pseudo_reward > 0 and judged and completion.finish_reason == "stop"


def _labelled(prompt_id: str, answer: str | None, share: float, votes: int) -> Label:
    return Label(prompt_id, answer, share, votes, reason="labelled", validation=False)


def _unlabelled(prompt_id: str, reason: str, share: float = 0.0, votes: int = 0) -> Label:
    return Label(prompt_id, None, share, votes, reason=reason, validation=False)
