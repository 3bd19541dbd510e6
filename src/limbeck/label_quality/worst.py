"""The worst disagreements with gold: where many votes, or a sure judge, were wrong."""

from collections.abc import Callable, Iterable, Mapping
from heapq import nlargest

from limbeck.label_quality.model import WrongJudgement, WrongLabel
from limbeck.label_quality.votes import Groups, TeacherAnswer
from limbeck.labels import Label


def wrong_labels(
    labels: Iterable[Label],
    groups: Groups,
    p_correct: Mapping[str, float],
    gold: Mapping[str, str],
    same: Callable[[str, str], bool],
    count: int,
) -> tuple[WrongLabel, ...]:
    """The labels that are wrong with the highest vote share; of equal ones, those with more votes."""

    def best(label: Label) -> str | None:
        rows = groups.get(label.prompt_id, ())
        given = [row for row in rows if row.answer and label.answer and same(row.answer, label.answer)]
        chosen = max(given, key=lambda row: (p_correct[row.completion_id], row.completion_id), default=None)
        return chosen and chosen.completion_id

    worst = nlargest(
        count,
        (
            label
            for label in labels
            if label.answer is not None and label.answer != gold.get(label.prompt_id, label.answer)
        ),
        key=lambda label: (label.vote_share, label.num_votes, label.prompt_id),
    )
    return tuple(
        WrongLabel(
            prompt_id=label.prompt_id,
            answer=label.answer or "",
            gold=gold[label.prompt_id],
            vote_share=label.vote_share,
            num_votes=label.num_votes,
            completion_id=best(label),
        )
        for label in worst
    )


def wrong_judgements(
    rows: Iterable[TeacherAnswer], p_correct: Mapping[str, float], gold: Mapping[str, str], count: int
) -> tuple[WrongJudgement, ...]:
    """The completions that are wrong with the highest P(correct), one of each prompt."""

    def rank(row: TeacherAnswer) -> tuple[float, str]:
        return p_correct[row.completion_id], row.completion_id

    by_prompt: dict[str, TeacherAnswer] = {}
    for row in rows:
        if row.completion_id not in p_correct or row.answer == gold.get(row.prompt_id, row.answer):
            continue
        known = by_prompt.get(row.prompt_id)
        if known is None or rank(row) > rank(known):
            by_prompt[row.prompt_id] = row
    return tuple(
        WrongJudgement(
            prompt_id=row.prompt_id,
            completion_id=row.completion_id,
            answer=row.answer,
            gold=gold[row.prompt_id],
            p_correct=p_correct[row.completion_id],
        )
        for row in nlargest(count, by_prompt.values(), key=rank)
    )
