"""The decision: whether what a run trained should take the place of what is in use."""

from collections.abc import Sequence
from dataclasses import dataclass

from limbeck.report.figures import interval, percent, points
from limbeck.report.model import AccuracyRow, Comparison, Decision

POLICY = "policy"
"""The row of the picked PPO run, which is there under its own name too."""


@dataclass(frozen=True)
class Contest:
    """Which row may be promoted, and what it is held against."""

    candidate: str | None
    """`policy` after PPO, else the warmed-up student's own name; None when nothing was trained."""
    baselines: tuple[str, ...]
    """What all rows are compared with."""
    must_beat: tuple[str, ...]
    """Those of them that the candidate must lie above."""


DISTILLED = Contest(POLICY, ("sft_selected", "teacher"), ("sft_selected", "teacher"))
"""The whole method: better than its own start and than its teacher."""


def contest(names: Sequence[str], picked: str | None, policies: Sequence[str]) -> Contest:
    """What is decided, from what a run made.

    Args:
        names: The evaluated models, in their order.
        picked: The name of the picked checkpoint, or None when nothing was trained.
        policies: The names of the PPO runs; none when training ended with SFT.

    Returns:
        After PPO: against its start and, where it was evaluated, the teacher. After SFT alone: it must be
        better than the student as it came; the teacher is shown beside it. Without training: all against
        the first model.
    """
    if picked is None:
        return Contest(None, tuple(names[:1]), ())
    teacher = tuple(name for name in names if name == "teacher")
    if not policies:
        return Contest(picked, ("student", *teacher), ("student",))
    others = [name for name in names if name not in policies and name != "teacher"]
    if not others and not teacher:
        return DISTILLED
    start = ("sft_selected",) if "sft_selected" in others else tuple(others[:1])
    return Contest(POLICY, (*start, *teacher), (*start, *teacher))


def decide(
    rows: Sequence[AccuracyRow],
    compared: Sequence[Comparison],
    picked: str,
    checkpoint_uri: str,
    asked: Contest = DISTILLED,
    *,
    judged: bool = False,
) -> Decision:
    """Promote the candidate when, sampled, all intervals against what it must beat lie above 0.

    Args:
        rows: All accuracies.
        compared: All comparisons.
        picked: The checkpoint's own name.
        checkpoint_uri: The folder of its weights.
        asked: What is decided.
        judged: Whether the teacher says which answers are right: good ones, of open questions.
    """
    row = next((row for row in rows if (row.name, row.decoding) == (asked.candidate, "sampled")), None)
    against = {c.b: c for c in compared if (c.a, c.decoding) == (asked.candidate, "sampled")}
    missing = [name for name in asked.must_beat if name not in against]
    if row is None or row.accuracy is None or missing:
        if row is not None and row.accuracy is None:
            reason = "The held-out prompts have no gold answers, so no accuracy was measured."
        else:
            reason = f"Rows are missing: {', '.join(missing) or asked.candidate}."
        rival = "its teacher" if "teacher" in asked.must_beat else "the model it started from"
        return Decision(
            promote=False,
            outcome="not decided",
            headline=f"Whether the student passed {rival} was not measured.",
            reason=reason,
            policy=picked,
            checkpoint_uri=checkpoint_uri,
        )

    open_against = [name for name in asked.must_beat if not is_above(against[name])]
    shown = " and ".join(
        f"{points(against[name].difference)} points against {name} (95% interval "
        f"{interval(against[name].interval, signed=True)})"
        for name in asked.baselines
        if name in against
    )
    who = f"the policy ({picked})" if asked.candidate == POLICY else f"the student after SFT ({picked})"
    headline, answers = _headline(against, asked), f"answers {percent(row.accuracy)} right"
    if judged:
        answers = f"gives {percent(row.accuracy)} answers that the teacher judges good"
    return Decision(
        promote=not open_against,
        outcome="do not promote" if open_against else "promote",
        headline=f"By the teacher's judgement: {headline}" if judged else headline,
        reason=(
            f"On {row.n:,} held-out prompts, sampled, {who} {answers} "
            f"(95% interval {interval(row.interval)}): {shown}. {_verdict(asked, open_against)}"
        ),
        policy=picked,
        checkpoint_uri=checkpoint_uri,
    )


def no_decision(rows: Sequence[AccuracyRow], compared: Sequence[Comparison], asked: Contest) -> Decision:
    """What is said where nothing was trained: how the others stand to the first model."""
    names = dict.fromkeys(row.name for row in rows)
    reason = "Nothing was trained here, so nothing is decided."
    if all(row.accuracy is None for row in rows):
        reason += " The held-out prompts have no gold answers, so no accuracy was measured."
    elif compared:
        sampled = [item for item in compared if item.decoding == "sampled"]
        above, below = sum(map(is_above, sampled)), sum(map(_is_below, sampled))
        counted = f"{above} of {len(sampled)} better and {below} worse, beyond chance"
        reason += f" Sampled, against {asked.baselines[0]}: {counted}."
    return Decision(
        promote=False,
        outcome="not decided",
        headline=f"{len(names)} {'model' if len(names) == 1 else 'models'} on the same held-out prompts",
        reason=reason,
        policy=None,
        checkpoint_uri=None,
    )


def of_upper_bound(decision: Decision) -> Decision:
    """The decision on a run whose labels were gold answers: something to compare with, never promoted."""
    return decision.model_copy(
        update={
            "promote": False,
            "outcome": "not decided",
            "headline": "An upper bound: its labels were gold answers",
            "reason": "It is a row to compare with, not a result of the method, and is never promoted. "
            f"Of a run without gold one would say: {decision.reason}",
        }
    )


def is_above(comparison: Comparison) -> bool:
    """Whether `a` is better than `b` beyond chance: the interval lies above 0."""
    return comparison.interval is not None and comparison.interval[0] > 0


def _is_below(comparison: Comparison) -> bool:
    return comparison.interval is not None and comparison.interval[1] < 0


def _verdict(asked: Contest, open_against: Sequence[str]) -> str:
    """What follows from the intervals."""
    if open_against:
        return f"Against {' and '.join(open_against)} it does not lie above 0: do not promote it."
    if asked.baselines != asked.must_beat:
        start = " and ".join(asked.must_beat)
        return f"Against {start} it lies above 0: promote it. Passing the teacher is not asked for."
    return f"{'Both intervals lie' if len(asked.must_beat) == 2 else 'It lies'} above 0: promote it."


def _headline(against: dict[str, Comparison], asked: Contest) -> str:
    """Did the student pass its teacher; where that is not asked for, what did training do."""
    if "teacher" in asked.must_beat:
        if is_above(against["teacher"]):
            return "The student passed its teacher."
        if _is_below(against["teacher"]):
            return "The student did not pass its teacher."
        return "The student is level with its teacher: the difference is within chance."
    training = "Reinforcement learning" if asked.candidate == POLICY else "SFT"
    start = against[asked.must_beat[0]]
    if is_above(start):
        return f"{training} made the student better."
    if _is_below(start):
        return f"{training} made the student worse."
    return f"{training} changed nothing beyond chance."
