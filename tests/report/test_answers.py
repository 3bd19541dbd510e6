"""What is kept of the held-out answers, and how the samples of a prompt vote."""

from operator import eq

import pytest

from limbeck.records import NOT_ASKED, Decoding, EvalResult
from limbeck.report.accuracy import accuracy_rows, prompt_scores
from limbeck.report.answers import Answer, collect, majority


def sample(answer: str | None, gold: str | None = "7", num_tokens: int = 10, *, cut: bool = False) -> Answer:
    return Answer(answer, None if gold is None else answer == gold, num_tokens, cut)


def chance(samples: list[Answer]) -> float:
    """The chance that the majority of some samples is right."""
    winners = majority(samples, same_value)
    return sum(bool(item.correct) for item in winners) / len(winners)


def same_value(left: str, right: str) -> bool:
    """Equal numbers are one answer, as equal formulas are."""
    return left == right or float(left) == float(right)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["7", "7", "8", "9"], 1.0),
        (["8", "7", "8", "9"], 0.0),
        (["7", "8"], 0.5),  # a tie: half right, whichever came first
        (["8", "7"], 0.5),
        (["8", "7", "9"], 1 / 3),
        (["7", "8", "8.0", "9"], 0.0),  # 8 and 8.0 are one answer, so there is no tie
        (["7", None, None, None], 1.0),  # no answer, no vote
        ([None, None], 0.0),
        (["8"], 0.0),
    ],
)
def test_the_answer_of_most_samples_counts_and_a_tie_by_its_chance(
    answers: list[str | None], expected: float
) -> None:
    assert chance([sample(answer) for answer in answers]) == pytest.approx(expected)
    assert chance([sample(answer) for answer in reversed(answers)]) == pytest.approx(expected)


def test_answers_that_equal_gold_are_one_answer_however_they_are_written() -> None:
    """Which was worked out when they were evaluated: it is not asked again."""
    samples = [Answer("1/2", True, 3, False), Answer("0.50", True, 3, False), *[sample("8")] * 1, sample("9")]

    def refuse(left: str, right: str) -> bool:
        assert {left, right} == {"8", "9"}
        return False

    assert [item.answer for item in majority(samples, refuse)] == ["1/2"]


def test_without_gold_there_are_majorities_all_the_same() -> None:
    winners = majority([sample(answer, None) for answer in ("3", "4", "4.0", "5")], same_value)
    assert [(item.answer, item.correct) for item in winners] == [("4", None)]


def test_a_majority_costs_the_tokens_of_all_samples() -> None:
    (winner,) = majority([sample("7", num_tokens=5), sample("7", num_tokens=6), sample("8", cut=True)], eq)
    assert (winner.num_tokens, winner.cut) == (21, True)


def result(name: str, decoding: Decoding, index: int, answer: str | None, prompt: str = "p") -> EvalResult:
    return EvalResult(
        prompt_id=prompt,
        name=name,
        decoding=decoding,
        sample_index=index,
        text="long",
        answer=answer,
        correct=answer == "7",
        num_tokens=0 if index < 0 else 4,
        finish_reason=NOT_ASKED if index < 0 else "stop",
    )


def test_rows_are_sampled_greedy_and_majority_where_there_is_more_than_one_sample() -> None:
    results = [result("teacher", "greedy", 0, "8")]
    results += [result("teacher", "sampled", index, "7" if index else "8") for index in range(3)]
    results += [result("ppo_model", "greedy", 0, "7"), result("ppo_model", "sampled", 0, "7")]
    rows = accuracy_rows(prompt_scores(collect(results, eq, "ppo_model")), 50, 1)
    assert {(row.name, row.decoding): row.accuracy for row in rows} == {
        ("teacher", "sampled"): pytest.approx(2 / 3),
        ("ppo_model", "sampled"): 1.0,
        ("policy", "sampled"): 1.0,
        ("teacher", "greedy"): 0.0,
        ("ppo_model", "greedy"): 1.0,
        ("policy", "greedy"): 1.0,
        ("teacher", "majority"): 1.0,
    }


def test_a_prompt_that_no_model_was_asked_is_wrong_and_took_no_tokens() -> None:
    results = [result("m", "sampled", index, "7") for index in range(2)]
    results.append(result("m", "sampled", -1, None, "too long"))
    answers = collect(results, eq)
    assert prompt_scores(answers)["m", "majority"] == {"p": 1.0, "too long": 0.0}
    assert answers["m", "majority"]["too long"] == (Answer(None, False, None, False),)
