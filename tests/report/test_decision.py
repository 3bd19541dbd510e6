"""The decision, from figures made by hand, for each kind of pipeline."""

from collections.abc import Callable
from operator import eq

import pytest

from limbeck.records import EvalResult
from limbeck.report.accuracy import accuracy_rows, comparisons, prompt_scores
from limbeck.report.answers import collect
from limbeck.report.decision import DISTILLED, Contest, contest, decide, no_decision
from limbeck.report.model import AccuracyRow, Comparison, Decision

MakeResults = Callable[..., list[EvalResult]]
AFTER_SFT = Contest("sft_selected", ("student", "teacher"), ("student",))


@pytest.mark.parametrize(
    ("names", "picked", "policies", "asked"),
    [
        (("teacher", "student", "sft_selected", "ppo_model"), "ppo_model", ("ppo_model",), DISTILLED),
        # distill_data: the student after SFT against the student as it came.
        (("teacher", "student", "sft_selected", "sft_all"), "sft_selected", (), AFTER_SFT),
        (("student", "sft_selected"), "sft_selected", (),
         Contest("sft_selected", ("student",), ("student",))),
        # distill_rewards: no teacher, and the start may have any name.
        (("sft_selected", "ppo_model"), "ppo_model", ("ppo_model",),
         Contest("policy", ("sft_selected",), ("sft_selected",))),
        (("mine", "ppo_model", "ppo_mixed"), "ppo_mixed", ("ppo_model", "ppo_mixed"),
         Contest("policy", ("mine",), ("mine",))),
        (("teacher", "mine", "ppo_model"), "ppo_model", ("ppo_model",),
         Contest("policy", ("mine", "teacher"), ("mine", "teacher"))),
        (("ppo_model",), "ppo_model", ("ppo_model",), DISTILLED),  # which then says what is missing
        # evaluate: the first model is the baseline.
        (("b", "a", "c"), None, (), Contest(None, ("b",), ())),
        ((), None, (), Contest(None, (), ())),
    ],
)  # fmt: skip
def test_what_is_decided_follows_from_what_was_made(
    names: tuple[str, ...], picked: str | None, policies: tuple[str, ...], asked: Contest
) -> None:
    assert contest(names, picked, policies) == asked


def decision(against_sft: tuple[float, float], against_teacher: tuple[float, float]) -> Decision:
    row = AccuracyRow(name="policy", decoding="sampled", n=1000, accuracy=0.589, interval=(0.56, 0.62))
    compared = [
        Comparison(a="policy", b=b, decoding="sampled", n=1000, difference=sum(i) / 2, interval=i)
        for b, i in (("sft_selected", against_sft), ("teacher", against_teacher))
    ]
    # Greedy says the opposite: it must not count.
    compared += [
        item.model_copy(update={"decoding": "greedy", "interval": (-high, -low)})
        for item, (low, high) in zip(compared, (against_sft, against_teacher), strict=True)
    ]
    return decide([row], compared, "ppo_mixed", "s3://w/ppo/x/abc")


def test_policy_above_both_is_promoted() -> None:
    made = decision((0.02, 0.06), (0.04, 0.09))
    assert (made.promote, made.outcome) == (True, "promote")
    assert made.headline == "The student passed its teacher."
    assert "1,000 held-out prompts" in made.reason
    assert "58.9% right (95% interval 56.0 to 62.0)" in made.reason
    assert "+6.5 points against teacher (95% interval +4.0 to +9.0)" in made.reason
    assert (made.policy, made.checkpoint_uri) == ("ppo_mixed", "s3://w/ppo/x/abc")


@pytest.mark.parametrize(
    ("against_sft", "against_teacher", "headline", "open_against"),
    [
        ((-0.01, 0.05), (0.01, 0.05), "The student passed its teacher.", "Against sft_selected it"),
        ((0.01, 0.05), (0.0, 0.05), "The student is level", "Against teacher it"),
        ((0.01, 0.05), (-0.05, -0.01), "The student did not pass", "Against teacher it"),
        ((-0.01, 0.05), (-0.01, 0.05), "The student is level", "Against sft_selected and teacher it"),
    ],
)
def test_an_interval_that_touches_zero_is_not_promoted(
    against_sft: tuple[float, float], against_teacher: tuple[float, float], headline: str, open_against: str
) -> None:
    made = decision(against_sft, against_teacher)
    assert (made.promote, made.outcome) == (False, "do not promote")
    assert made.headline.startswith(headline)
    assert open_against in made.reason


def test_without_a_baseline_nothing_is_decided(results_of: MakeResults) -> None:
    scores = prompt_scores(collect(results_of({"sft_selected": 0.5, "ppo_model": 0.6}, 10), eq, "ppo_model"))
    made = decide(accuracy_rows(scores, 50, 1), comparisons(scores, 50, 1), "ppo_model", "s3://x")
    assert made.outcome == "not decided"
    assert "teacher" in made.reason


def after_sft(against_student: tuple[float, float], against_teacher: tuple[float, float]) -> Decision:
    row = AccuracyRow(name="sft_selected", decoding="sampled", n=500, accuracy=0.6, interval=(0.5, 0.7))
    compared = [
        Comparison(a="sft_selected", b=b, decoding="sampled", n=500, difference=sum(i) / 2, interval=i)
        for b, i in (("student", against_student), ("teacher", against_teacher))
    ]
    return decide([row], compared, "sft_selected", "s3://w/sft/x/abc", AFTER_SFT)


@pytest.mark.parametrize(
    ("against_student", "outcome", "headline"),
    [
        ((0.1, 0.2), "promote", "SFT made the student better."),
        ((-0.1, 0.2), "do not promote", "SFT changed nothing beyond chance."),
        ((-0.2, -0.1), "do not promote", "SFT made the student worse."),
    ],
)
@pytest.mark.parametrize("against_teacher", [(-0.3, -0.2), (0.1, 0.2)])
def test_after_sft_alone_the_student_as_it_came_decides_and_the_teacher_is_shown(
    against_student: tuple[float, float], against_teacher: tuple[float, float], outcome: str, headline: str
) -> None:
    made = after_sft(against_student, against_teacher)
    assert (made.outcome, made.headline) == (outcome, headline)
    assert made.promote == (outcome == "promote")
    assert "the student after SFT (sft_selected) answers 60.0% right" in made.reason
    assert "points against student" in made.reason
    assert "points against teacher" in made.reason
    if made.promote:
        assert made.reason.endswith("promote it. Passing the teacher is not asked for.")


def test_without_a_teacher_the_policy_is_held_against_its_start(results_of: MakeResults) -> None:
    scores = prompt_scores(collect(results_of({"mine": 0.3, "ppo_model": 0.7}, 60), eq, "ppo_model"))
    asked = contest(["mine", "ppo_model"], "ppo_model", ["ppo_model"])
    compared = comparisons(scores, 200, 1, asked.baselines)
    made = decide(accuracy_rows(scores, 200, 1), compared, "ppo_model", "s3://x", asked)
    assert (made.promote, made.headline) == (True, "Reinforcement learning made the student better.")
    assert "points against mine" in made.reason
    assert made.reason.endswith("It lies above 0: promote it.")
    assert "teacher" not in made.reason


def test_where_nothing_was_trained_the_others_are_counted(results_of: MakeResults) -> None:
    names = ["first", "better", "same", "worse"]
    accuracies = dict(zip(names, (0.5, 0.9, 0.5, 0.1), strict=True))
    scores = dict(prompt_scores(collect(results_of(accuracies, 60), eq, None, names)))
    scores["same", "sampled"] = scores["first", "sampled"]
    asked = contest(names, None, ())
    compared = comparisons(scores, 200, 1, asked.baselines)
    assert {(item.a, item.b) for item in compared} == {(name, "first") for name in names[1:]}
    made = no_decision(accuracy_rows(scores, 200, 1), compared, asked)
    assert (made.promote, made.outcome, made.policy) == (False, "not decided", None)
    assert made.headline == "4 models on the same held-out prompts"
    assert "against first: 1 of 3 better and 1 worse, beyond chance" in made.reason
    one = no_decision(accuracy_rows(scores, 50, 1)[:1], (), asked)
    assert one.headline == "1 model on the same held-out prompts"
    assert "against" not in one.reason
