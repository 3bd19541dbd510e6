"""The held-out answers of all models as the report keeps them: without their texts, which may outgrow memory.

A row of the report answers a prompt with one answer or with several that are equally likely: its samples, or
the answers that most of them agree on. Whatever is measured of a prompt is the mean over those.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from limbeck.answers import Same
from limbeck.answers.groups import representatives
from limbeck.records import NOT_ASKED, EvalResult
from limbeck.report.decision import POLICY
from limbeck.report.model import RowDecoding

ORDER = (
    "teacher",
    "student",
    "sft_all",
    "sft_selected",
    "ppo_judge",
    "ppo_agreement",
    "ppo_mixed",
    "ppo_model",
    POLICY,
)
DECODINGS: tuple[RowDecoding, ...] = ("sampled", "greedy", "majority")


class Answer(NamedTuple):
    """What is kept of one answer."""

    answer: str | None
    correct: bool | None
    """None without gold."""
    num_tokens: int | None
    """What it took to give it; None when the model was not asked."""
    cut: bool
    """Whether it was cut off; of a majority, whether one of its samples was."""


Answers = Mapping[tuple[str, RowDecoding], Mapping[str, Sequence[Answer]]]
"""(row, decoding) -> prompt id -> its answers, in the report's order of rows."""


def collect(
    results: Iterable[EvalResult],
    same: Same | None,
    picked: str | None = None,
    order: Sequence[str] = ORDER,
) -> Answers:
    """Group results by row, decoding and prompt, and let the samples of each prompt vote.

    Args:
        results: Of all models.
        same: Whether two answers are the same; None where that cannot be, and nothing votes.
        picked: The PPO run that is there again as `policy`, if any.
        order: Names in the order of their rows; others come before the last but one, by name.
    """
    found: dict[tuple[str, RowDecoding], dict[str, Sequence[Answer]]] = {}
    given: dict[tuple[str, RowDecoding], dict[str, list[Answer]]] = defaultdict(lambda: defaultdict(list))
    for row in results:
        given[row.name, row.decoding][row.prompt_id].append(_kept(row))
    for (name, decoding), of_row in given.items():
        found[name, decoding] = dict(of_row)
        if same and decoding == "sampled" and any(len(samples) > 1 for samples in of_row.values()):
            found[name, "majority"] = {prompt: majority(samples, same) for prompt, samples in of_row.items()}
    if picked is not None:
        found |= {(POLICY, decoding): of_row for (name, decoding), of_row in found.items() if name == picked}
    names = sorted({name for name, _ in found}, key=lambda name: _position(name, order))
    return {
        (name, decoding): found[name, decoding]
        for decoding in DECODINGS
        for name in names
        if (name, decoding) in found
    }


def majority(samples: Sequence[Answer], same: Same) -> tuple[Answer, ...]:
    """The answer that most samples of a prompt give; of a tie, all of them: which one wins would be chance.

    Equal formulas are one answer; those that equal gold are one anyway. Samples without an answer do not
    vote; if none has one, there is none. An answer costs the tokens of all samples.

    Source: Wang et al. 2022 (arXiv 2203.11171), self-consistency; the expected accuracy over ties is ours.
    """
    wrong = (item.answer for item in samples if not item.correct)
    stands = representatives(wrong, same)
    groups: dict[str | None, Answer] = {}
    votes: dict[str | None, int] = defaultdict(int)
    for item in samples:
        if item.answer is not None:
            group = None if item.correct else stands[item.answer]
            groups.setdefault(group, item)
            votes[group] += 1
    most = max(votes.values(), default=0)
    winners = [groups[group] for group, number in votes.items() if number == most] or samples[:1]
    asked = [item.num_tokens for item in samples if item.num_tokens is not None]
    num_tokens = sum(asked) if asked else None
    cut = any(item.cut for item in samples)
    return tuple(item._replace(num_tokens=num_tokens, cut=cut) for item in winners)


def _kept(row: EvalResult) -> Answer:
    """A result without its text; the same answer is one string, however often it is given."""
    return Answer(
        answer=None if row.answer is None else sys.intern(row.answer),
        correct=row.correct,
        num_tokens=None if row.finish_reason == NOT_ASKED else row.num_tokens,
        cut=row.finish_reason == "length",
    )


def _position(name: str, order: Sequence[str]) -> tuple[int, str]:
    """Known rows in their order; unknown ones before the policy, by name."""
    return (order.index(name), "") if name in order else (len(order) - 2, name)
