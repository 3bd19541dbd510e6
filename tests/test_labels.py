"""Votes, ties, thresholds and selection."""

import pytest

from limbeck.config import LabelConfig
from limbeck.labels import GOLD, Label, gold_label, is_selected, open_label, pseudo_label, with_validation
from limbeck.records import Completion


def completion(number: int, answer: str | None, finish_reason: str = "stop") -> Completion:
    return Completion(
        completion_id=str(number),
        prompt_id="p",
        source="teacher",
        text=f"= {answer}",
        answer=answer,
        temperature=0.7,
        sample_index=number,
        seed=number,
        logprob=-1.0,
        num_tokens=3,
        finish_reason=finish_reason,
    )


def vote(answers: list[str | None], judged: list[float], **settings: object) -> tuple[object, ...]:
    rows = [completion(number, answer) for number, answer in enumerate(answers)]
    p_correct = {row.completion_id: p for row, p in zip(rows, judged, strict=True)}
    label = pseudo_label("p", rows, p_correct, LabelConfig.model_validate(settings))
    return label.answer, label.vote_share, label.reason


def test_majority_counts_every_answer() -> None:
    assert vote(["a", "a", "b"], [0, 0, 1], rule="majority") == ("a", pytest.approx(2 / 3), "labelled")


def test_judged_majority_counts_what_the_judge_lets_pass() -> None:
    assert vote(["a", "a", "b"], [0.1, 0.2, 0.9], rule="judged_majority") == ("b", 1.0, "labelled")


def test_judge_takes_the_best_judged_answer() -> None:
    assert vote(["a", "a", "b"], [0.6, 0.6, 0.9], rule="judge") == ("b", pytest.approx(1 / 3), "labelled")


def test_completions_without_an_answer_have_no_vote() -> None:
    assert vote([None, None, "b"], [1, 1, 1], rule="majority") == ("b", 1.0, "labelled")


@pytest.mark.parametrize(
    ("answers", "judged", "settings", "reason"),
    [
        (["a", "b"], [1, 1], {}, "tie"),
        (["a", "b", "c", "a"], [1, 1, 1, 1], {"min_vote_share": 0.6}, "low vote share"),
        (["a", "a"], [0.4, 0.4], {}, "no votes"),
        ([None], [1.0], {"rule": "majority"}, "no votes"),
        ([], [], {}, "no votes"),
    ],
)
def test_a_prompt_stays_unlabelled(
    answers: list[str | None], judged: list[float], settings: dict[str, object], reason: str
) -> None:
    answer, _, why = vote(answers, judged, **settings)
    assert (answer, why) == (None, reason)


def test_only_good_finished_completions_are_selected() -> None:
    config = LabelConfig()
    assert is_selected(completion(1, "a"), 1.0, 0.9, config)
    assert not is_selected(completion(1, "b"), 0.0, 0.9, config)
    assert not is_selected(completion(1, "a"), 1.0, 0.1, config)
    assert not is_selected(completion(1, "a", finish_reason="length"), 1.0, 0.9, config)
    assert is_selected(completion(1, "a"), 1.0, None, LabelConfig(rule="majority"))


@pytest.mark.parametrize(
    ("answers", "judged", "expected"),
    [
        (["x", "y", "z"], [0.6, 0.9, 0.2], ("y", pytest.approx(2 / 3), 2, "labelled")),
        (["x"], [0.5], ("x", 1.0, 1, "labelled")),
        ([None, "y"], [1.0, 0.6], ("y", 0.5, 1, "labelled")),
        (["x", "x"], [0.4, 0.4], (None, 0.0, 0, "none judged good")),
        ([None], [1.0], (None, 0.0, 0, "none judged good")),
        ([], [], (None, 0.0, 0, "none judged good")),
    ],
)
def test_the_label_of_an_open_prompt_is_its_best_completion_if_that_is_good(
    answers: list[str | None], judged: list[float], expected: tuple[object, ...]
) -> None:
    completions = [completion(number, answer) for number, answer in enumerate(answers)]
    p_correct = {item.completion_id: p for item, p in zip(completions, judged, strict=True)}
    made = open_label("p", completions, p_correct, LabelConfig(rule="judge", min_p_correct=0.5))
    assert (made.answer, made.vote_share, made.num_votes, made.reason) == expected


def test_the_validation_part_is_labelled_and_follows_the_seed() -> None:
    labels = [
        Label(
            prompt_id=str(n),
            answer="a" if n % 2 else None,
            vote_share=1.0,
            num_votes=1,
            reason="labelled",
            validation=False,
        )
        for n in range(100)
    ]

    def chosen(num_prompts: int, seed: int) -> set[str]:
        marked = with_validation(labels, num_prompts, seed)
        assert [label.prompt_id for label in marked] == [label.prompt_id for label in labels]
        assert all(label.answer for label in marked if label.validation)
        return {label.prompt_id for label in marked if label.validation}

    assert len(chosen(10, seed=1)) == 10
    assert chosen(10, seed=1) != chosen(10, seed=2)
    assert len(chosen(1000, seed=1)) == 25  # never more than half of the labelled ones


@pytest.mark.parametrize(
    ("answers", "gold", "expected"),
    [
        (["a", "b", "b", None], "a", ("a", 1 / 3, 3, GOLD)),
        (["b"], "a", ("a", 0.0, 1, GOLD)),  # nobody found it: a label all the same
        ([], "a", ("a", 0.0, 0, GOLD)),
        (["a", "a"], None, (None, 0.0, 2, "no gold answer")),
    ],
)
def test_gold_is_a_label_that_says_so(
    answers: list[str | None], gold: str | None, expected: tuple[object, ...]
) -> None:
    label = gold_label("p", [completion(number, answer) for number, answer in enumerate(answers)], gold)
    assert (label.answer, pytest.approx(label.vote_share), label.num_votes, label.reason) == expected


def test_where_gold_is_the_label_no_judgement_is_needed() -> None:
    config = LabelConfig(rule="gold")
    assert is_selected(completion(1, "a"), 1.0, None, config)
    assert not is_selected(completion(1, "b"), 0.0, None, config)
