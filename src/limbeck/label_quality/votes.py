"""Votes held again: each rule on some of the teacher's completions, and what gold says of the labels."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from limbeck.config import LabelConfig
from limbeck.label_quality.model import Curve, Point, Vote, VoteBySamples
from limbeck.labels import Label, pseudo_label

THRESHOLDS = tuple(number / 20 for number in range(21))


class TeacherAnswer(NamedTuple):
    """What of a teacher completion is kept in memory."""

    completion_id: str
    prompt_id: str
    answer: str | None
    temperature: float
    num_chars: int


Groups = Mapping[str, Sequence[TeacherAnswer]]
"""Prompt id -> its teacher completions, in the order of their ids.

These are hashes, so the first so many are a random draw.
"""


class Agreed:
    """Counts how often the student gives the labels' answers; its completions need not be kept."""

    def __init__(self, labels: Iterable[Label], same: Callable[[str, str], bool]) -> None:
        """Count nothing yet.

        Args:
            labels: One for each prompt; those without an answer are passed over.
            same: Whether two answers are the same.
        """
        self._labels = {label.prompt_id: label for label in labels if label.answer is not None}
        self._same = same
        self._number, self._hits = Counter[float](), Counter[float]()  # by vote share, of which there are few

    def add(self, row: TeacherAnswer) -> TeacherAnswer:
        """Count one completion and give it on."""
        label = self._labels.get(row.prompt_id)
        if label is not None and label.answer is not None:
            self._number[label.vote_share] += 1
            self._hits[label.vote_share] += row.answer is not None and self._same(row.answer, label.answer)
        return row

    def share(self, low: float, high: float) -> float | None:
        """Of the prompts whose labels' vote shares are in a part."""
        inside = [votes for votes in self._number if in_part(votes, low, high)]
        return share(sum(self._hits[votes] for votes in inside), sum(self._number[votes] for votes in inside))


def in_part(vote_share: float, low: float, high: float) -> bool:
    """Whether a vote share is above `low` and up to `high`; the lowest part has 0 too.

    A gold answer that no completion gives has a vote share of 0.
    """
    return low < vote_share <= high or vote_share == low == 0


def share(hits: int, total: int) -> float | None:
    """Share of the hits, None of nothing."""
    return hits / total if total else None


def coverage_and_precision(
    labels: Iterable[Label], gold: Mapping[str, str]
) -> tuple[float | None, float | None]:
    """Share of the prompts with a label; share of the labels with gold that equal it."""
    num_prompts = num_labels = num_with_gold = num_right = 0
    for label in labels:
        num_prompts += 1
        if label.answer is not None:
            num_labels += 1
            num_with_gold += label.prompt_id in gold
            num_right += label.answer == gold.get(label.prompt_id)
    return share(num_labels, num_prompts), share(num_right, num_with_gold)


def by_temperature(
    groups: Groups,
    temperatures: Sequence[float],
    p_correct: Mapping[str, float],
    gold: Mapping[str, str],
    config: LabelConfig,
    rule: str,
) -> Iterator[tuple[Vote, Curve]]:
    """A rule on all completions and on those of each temperature: at the run's threshold, and at all.

    Args:
        groups: The completions.
        temperatures: Those that are there.
        p_correct: Completion id -> P(correct); all have one.
        gold: Prompt id -> gold answer.
        config: The run's thresholds.
        rule: Which rule.
    """
    for temperature in (None, *temperatures):
        some = (
            (prompt_id, [row for row in rows if temperature is None or row.temperature == temperature])
            for prompt_id, rows in groups.items()
        )
        labels = list(_without_threshold(some, p_correct, config, rule))
        coverage, precision = coverage_and_precision(_at_threshold(labels, config, rule), gold)
        vote = Vote(rule=rule, temperature=temperature, coverage=coverage, precision=precision)
        yield vote, Curve(rule=rule, temperature=temperature, points=_points(labels, gold))


def by_samples(
    groups: Groups, p_correct: Mapping[str, float], gold: Mapping[str, str], config: LabelConfig, rule: str
) -> Iterator[VoteBySamples]:
    """A rule on 1, 2, 4, ... and all completions of each prompt, at the run's thresholds."""
    most = max(map(len, groups.values()), default=0)
    doubling = [1 << power for power in range(most.bit_length()) if 1 << power < most]
    for num_samples in [*doubling, most] if most else []:
        some = ((prompt_id, rows[:num_samples]) for prompt_id, rows in groups.items())
        labels = _without_threshold(some, p_correct, config, rule)
        coverage, precision = coverage_and_precision(_at_threshold(labels, config, rule), gold)
        yield VoteBySamples(rule=rule, num_samples=num_samples, coverage=coverage, precision=precision)


def _without_threshold(
    groups: Iterable[tuple[str, Sequence[TeacherAnswer]]],
    p_correct: Mapping[str, float],
    config: LabelConfig,
    rule: str,
) -> Iterator[Label]:
    """The winner of each prompt, whatever its vote share."""
    asked = config.model_copy(update={"rule": rule, "min_vote_share": 0.0})
    return (pseudo_label(prompt_id, rows, p_correct, asked) for prompt_id, rows in groups)


def _at_threshold(labels: Iterable[Label], config: LabelConfig, rule: str) -> Iterator[Label]:
    """The labels that the run's rule would leave: `judge` asks for no vote share."""
    least = 0.0 if rule == "judge" else config.min_vote_share
    return (label if label.vote_share >= least else label._replace(answer=None) for label in labels)


def _points(labels: Sequence[Label], gold: Mapping[str, str]) -> tuple[Point, ...]:
    """Coverage and precision of the labels that reach each threshold."""
    kept = [label for label in labels if label.answer is not None]
    shares = np.array([label.vote_share for label in kept], dtype=np.float64)
    with_gold = np.array([label.prompt_id in gold for label in kept], dtype=bool)
    right = np.array([label.answer == gold.get(label.prompt_id) for label in kept], dtype=bool)
    points = []
    for threshold in THRESHOLDS:
        reach = shares >= threshold
        points.append(
            Point(
                min_vote_share=threshold,
                coverage=share(int(reach.sum()), len(labels)),
                precision=share(int((reach & right).sum()), int((reach & with_gold).sum())),
            )
        )
    return tuple(points)
