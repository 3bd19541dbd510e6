"""Label quality against counts made by hand."""

import pytest

from limbeck.config import LabelConfig
from limbeck.label_quality import label_quality
from limbeck.label_quality.model import Confusion, LabelQuality, Point, Vote, VoteBySamples
from limbeck.records import Completion, Judgement, PseudoLabel

GOLD = {"p": "1", "q": "2", "r": "3"}

# prompt, temperature, answer, P(correct)
SAMPLES = [
    ("p", 0.3, "1", 0.9),
    ("p", 0.3, "9", 0.2),
    ("p", 1.0, "9", 0.8),
    ("p", 1.0, "9", 0.1),
    ("q", 0.3, "2", 0.5),
    ("q", 0.3, "2", 0.4),
    ("q", 1.0, "8", 0.3),
    ("q", 1.0, None, 0.6),
    ("r", 0.3, "7", 0.7),
    ("r", 1.0, "3", 0.6),
]


def completion(number: int, prompt_id: str, temperature: float, answer: str | None) -> Completion:
    return Completion(
        completion_id=f"c{number}",
        prompt_id=prompt_id,
        source="teacher",
        text="",
        answer=answer,
        temperature=temperature,
        sample_index=number,
        seed=0,
        logprob=0.0,
        num_tokens=1,
        finish_reason="stop",
    )


COMPLETIONS = [completion(i, p, t, a) for i, (p, t, a, _) in enumerate(SAMPLES)]
JUDGEMENTS = [
    Judgement(completion_id=f"c{i}", prompt_id=p, p_correct=judged)
    for i, (p, _, _, judged) in enumerate(SAMPLES)
]
LABELS = [
    PseudoLabel(prompt_id="p", answer="9", vote_share=0.75, num_votes=4, reason="labelled", validation=False),
    PseudoLabel(prompt_id="q", answer="2", vote_share=1.0, num_votes=1, reason="labelled", validation=False),
    PseudoLabel(prompt_id="r", answer=None, vote_share=0.5, num_votes=2, reason="tie", validation=False),
]


def measured(gold: dict[str, str], judgements: list[Judgement] = JUDGEMENTS) -> LabelQuality:
    config = LabelConfig(min_p_correct=0.5, min_vote_share=0.0)
    return label_quality(LABELS, COMPLETIONS, COMPLETIONS[:3], judgements, gold, config)


def test_labels_of_the_run() -> None:
    quality = measured(GOLD)
    assert quality.num_prompts == 3
    assert quality.coverage == pytest.approx(2 / 3)
    assert quality.precision == 0.5  # p is wrong, q is right, r has none
    assert quality.unlabelled == {"tie": 1}
    by_share = {(b.low, b.high): (b.num_labels, b.precision) for b in quality.by_vote_share}
    assert by_share[0.5, 0.75] == (1, 0.0)
    assert by_share[0.75, 1.0] == (1, 1.0)
    assert by_share[0.0, 0.25] == (0, None)


def test_the_student_agrees_less_where_the_teacher_was_less_sure() -> None:
    """Labels: p is 9 with 3/4 of the votes, q is 2 with all; r has none and does not count."""
    said = [("p", "9"), ("p", "1"), ("p", None), ("p", "9"), ("q", "2"), ("q", "2"), ("r", "7")]
    student = [completion(number, prompt_id, 1.0, answer) for number, (prompt_id, answer) in enumerate(said)]
    config = LabelConfig(min_p_correct=0.5)
    for gold in (GOLD, {}):
        bins = label_quality(LABELS, COMPLETIONS, student, JUDGEMENTS, gold, config).by_vote_share
        assert [item.student_agreement for item in bins] == [None, None, 0.5, 1.0]
    without = label_quality(LABELS, COMPLETIONS, [], JUDGEMENTS, GOLD, config).by_vote_share
    assert [item.student_agreement for item in without] == [None] * 4


def test_answers_that_are_the_same_count_as_one() -> None:
    roman = {"1": "I", "2": "II", "3": "III", "9": "IX"}

    def written(answer: str) -> str:
        return roman.get(answer, answer)

    # Every second completion and all labels are written in the other way.
    completions = [
        row if number % 2 or row.answer is None else row.model_copy(update={"answer": written(row.answer)})
        for number, row in enumerate(COMPLETIONS)
    ]
    labels = [row.model_copy(update={"answer": row.answer and written(row.answer)}) for row in LABELS]
    config = LabelConfig(min_p_correct=0.5, min_vote_share=0.0)
    quality = label_quality(
        labels,
        completions,
        completions[:3],
        JUDGEMENTS,
        GOLD,
        config,
        lambda left, right: written(left) == written(right),
    )
    expected = measured(GOLD)
    # The label is shown as it is written.
    (wrong,) = quality.wrong_labels
    assert wrong.answer == "IX"
    shown = wrong.model_copy(update={"answer": "9"})
    assert quality.model_copy(update={"wrong_labels": (shown,)}) == expected


def test_votes_by_temperature() -> None:
    votes = {(v.rule, v.temperature): v for v in measured(GOLD).votes}
    # Plain, all: p -> 9 (wrong), q -> 2 (right), r: 7 and 3 tie.
    assert votes["majority", None].precision == 0.5
    assert votes["majority", None].coverage == pytest.approx(2 / 3)
    # Plain, 0.3: p ties, q -> 2 (right), r -> 7 (wrong).
    assert votes["majority", 0.3] == Vote(rule="majority", temperature=0.3, coverage=2 / 3, precision=0.5)
    # Judged, 0.3: p -> 1 (right), q -> 2 (right), r -> 7 (wrong).
    assert votes["judged_majority", 0.3].coverage == 1.0
    assert votes["judged_majority", 0.3].precision == pytest.approx(2 / 3)
    # Judged, 1.0: p -> 9 (wrong), q: its one judged-right completion has no answer, r -> 3 (right).
    assert votes["judged_majority", 1.0].coverage == pytest.approx(2 / 3)
    assert votes["judged_majority", 1.0].precision == 0.5


def test_single_completions_by_temperature() -> None:
    quality = measured(GOLD)
    teacher = {item.temperature: (item.num_completions, item.accuracy) for item in quality.teacher}
    assert teacher == {None: (10, 0.4), 0.3: (5, 0.6), 1.0: (5, 0.2)}
    assert quality.student[0].num_completions == 3
    assert quality.student[0].accuracy == pytest.approx(1 / 3)


def test_judge_confusion_counts_from_the_threshold_on() -> None:
    judge = {item.temperature: item for item in measured(GOLD).judge}
    # 0.3: right 0.9, 0.5 (judged right), 0.4 (judged wrong); wrong 0.2 (judged wrong), 0.7 (judged right).
    # AUC: of 3 x 2 pairs, 0.9 wins 2, 0.5 wins 1, 0.4 wins 1.
    assert judge[0.3] == Confusion(temperature=0.3, tp=2, fp=1, tn=1, fn=1, auc=4 / 6)
    # 1.0: right 0.6; wrong 0.8, 0.6 (judged right), 0.1, 0.3.
    assert judge[1.0] == Confusion(temperature=1.0, tp=1, fp=2, tn=2, fn=0, auc=2.5 / 4)
    total = judge[None]
    assert (total.tp, total.fp, total.tn, total.fn) == (3, 3, 3, 1)


def test_without_gold_coverage_stays() -> None:
    quality = measured({})
    assert quality.coverage == pytest.approx(2 / 3)
    assert quality.precision is None
    assert quality.judge == ()
    assert all(vote.precision is None and vote.coverage is not None for vote in quality.votes)
    assert all(item.accuracy is None for item in (*quality.teacher, *quality.student))


def test_gold_of_some_prompts_measures_those() -> None:
    quality = measured({"q": "2"})
    assert quality.precision == 1.0
    assert quality.teacher[0].accuracy == 0.5
    assert quality.judge[0].tp + quality.judge[0].fp + quality.judge[0].tn + quality.judge[0].fn == 4


def test_without_judgements_only_plain_votes_are_measured() -> None:
    quality = measured(GOLD, [])
    assert {vote.rule for vote in quality.votes} == {"majority"}
    assert quality.judge == ()


def test_without_completions_only_the_labels_are_measured() -> None:
    quality = label_quality(LABELS, [], [], [], GOLD, LabelConfig())
    assert (quality.votes, quality.teacher, quality.student, quality.judge) == ((), (), (), ())
    assert (quality.num_prompts, quality.precision) == (3, 0.5)


def test_completions_are_taken_as_they_come() -> None:
    """From an iterator, once: a million of them need not be in memory."""
    config = LabelConfig(min_p_correct=0.5, min_vote_share=0.0)
    streamed = label_quality(LABELS, iter(COMPLETIONS), iter(COMPLETIONS[:3]), iter(JUDGEMENTS), GOLD, config)
    assert streamed == measured(GOLD)


def test_one_kind_only_has_no_auc() -> None:
    confusion = Confusion(temperature=None, tp=1, fp=0, tn=0, fn=0, auc=float("nan"))
    assert confusion.auc is None
    assert '"auc":null' in confusion.model_dump_json()


def both(item: Point | Vote | VoteBySamples) -> list[float | None]:
    """Coverage and precision."""
    return [item.coverage, item.precision]


def test_the_curve_of_a_rule_counts_the_labels_that_reach_each_threshold() -> None:
    curves = {(curve.rule, curve.temperature): curve for curve in measured(GOLD).curves}
    assert len(curves) == 9  # three rules, over all and at two temperatures
    points = {point.min_vote_share: point for point in curves["majority", None].points}
    # p -> 9 with 3/4 (wrong), q -> 2 with 2/3 (right), r ties.
    assert both(points[0.0]) == pytest.approx([2 / 3, 0.5])
    assert both(points[0.7]) == pytest.approx([1 / 3, 0.0])
    assert [points[0.75].coverage, points[0.8].coverage] == pytest.approx([1 / 3, 0.0])
    assert points[0.8].precision is None
    assert curves["majority", 0.3].points[-1].coverage == pytest.approx(2 / 3)  # q and r with all votes


def test_votes_keep_the_threshold_of_the_run_and_the_best_judged_answer_needs_none() -> None:
    config = LabelConfig(min_p_correct=0.5, min_vote_share=0.7)
    quality = label_quality(LABELS, COMPLETIONS, [], JUDGEMENTS, GOLD, config)
    votes = {vote.rule: vote for vote in quality.votes if vote.temperature is None}
    assert votes["majority"].coverage == pytest.approx(1 / 3)
    # p -> 1 (right), q -> 2 (right), r -> 7 (wrong).
    assert both(votes["judge"]) == pytest.approx([1.0, 2 / 3])


def test_votes_by_number_of_completions() -> None:
    found = {item.num_samples: item for item in measured(GOLD).by_samples if item.rule == "majority"}
    assert list(found) == [1, 2, 4]
    # One: 1, 2 and 7. Two: p and r tie. Four: as with all.
    assert both(found[1]) == pytest.approx([1.0, 2 / 3])
    assert both(found[2]) == pytest.approx([1 / 3, 1.0])
    assert both(found[4]) == pytest.approx([2 / 3, 0.5])


def test_the_worst_disagreements_come_first_and_one_of_each_prompt() -> None:
    quality = measured(GOLD)
    (label,) = quality.wrong_labels
    assert (label.prompt_id, label.answer, label.gold, label.vote_share) == ("p", "9", "1", 0.75)
    assert label.completion_id == "c2"  # of those that say 9, judged best
    found = [(item.completion_id, item.answer, item.p_correct) for item in quality.wrong_judgements]
    assert found == [("c2", "9", 0.8), ("c8", "7", 0.7), ("c7", None, 0.6)]
    assert not measured({}).wrong_labels
    assert not measured({}).wrong_judgements


def test_the_position_of_the_words_is_measured_where_both_were_asked() -> None:
    orders = [(0.9, 0.7), (0.6, 0.2), (0.1, 0.3), (None, None), (0.8, None)]
    judgements = [
        Judgement(completion_id=f"c{i}", prompt_id="p", p_correct=0.5, p_yes_first=yes, p_no_first=no)
        for i, (yes, no) in enumerate(orders)
    ]
    bias = measured(GOLD, judgements).position
    assert bias is not None
    assert bias.num_completions == 3
    assert bias.mean_difference == pytest.approx((0.2 + 0.4 - 0.2) / 3)
    assert bias.mean_absolute == pytest.approx(0.8 / 3)
    assert bias.flipped == pytest.approx(1 / 3)  # the second: 0.6 passes, 0.2 does not
    assert measured(GOLD).position is None


def test_a_judge_who_likes_length_is_found_with_and_without_gold() -> None:
    """Of one prompt and answer, the longer the better judged; those of q are longer and judged worse."""
    completions, judgements = [], []
    for number, (prompt_id, chars, said) in enumerate(
        [("p", 10, 0.5), ("p", 20, 0.7), ("p", 30, 0.9), ("q", 110, 0.1), ("q", 120, 0.3), ("q", 130, 0.5)]
    ):
        row = completion(number, prompt_id, 1.0, GOLD[prompt_id])
        completions.append(row.model_copy(update={"text": "x" * chars}))
        judgements.append(Judgement(completion_id=f"c{number}", prompt_id=prompt_id, p_correct=said))
    config = LabelConfig(min_p_correct=0.5)
    for gold in (GOLD, {}):
        bias = label_quality(LABELS, completions, [], judgements, gold, config).length
        assert bias is not None
        assert bias.same_answer == pytest.approx(1.0)
        assert (bias.right is None) == (not gold)
        assert bias.wrong is None
    right = label_quality(LABELS, completions, [], judgements, GOLD, config).length
    assert right is not None
    assert right.right is not None
    assert right.right < 0  # between prompts it is the other way round


def test_calibration_is_measured_before_and_after_and_the_run_goes_by_what_it_chose() -> None:
    """40 prompts x 4 completions of which 3 are right, and a judge who says 0.99 of all."""
    gold = {f"p{number}": "1" for number in range(40)}
    rows = [
        completion(4 * number + place, prompt_id, 1.0, "9" if place == 3 else "1")
        for number, prompt_id in enumerate(gold)
        for place in range(4)
    ]
    judgements = [
        Judgement(completion_id=row.completion_id, prompt_id=row.prompt_id, p_correct=0.99) for row in rows
    ]
    labels = [
        PseudoLabel(
            prompt_id=p, answer="1", vote_share=0.75, num_votes=4, reason="labelled", validation=False
        )
        for p in gold
    ]
    found = {}
    for calibrate in ("none", "majority"):
        config = LabelConfig.model_validate({"calibrate": calibrate, "min_p_correct": 0.9})
        quality = label_quality(labels, rows, [], judgements, gold, config)
        before, after = quality.calibration
        assert (before.calibrate, after.calibrate) == ("none", "majority")
        assert before.ece == pytest.approx(0.24)
        assert after.ece is not None
        assert after.ece < 0.02
        assert sum(item.count for item in before.bins) == 160
        found[calibrate] = {v.rule: v.coverage for v in quality.votes if v.temperature is None}
    # Judged right from 0.9 on: all, and after calibration none.
    assert found == {
        "none": {"majority": 1.0, "judged_majority": 1.0, "judge": 1.0},
        "majority": {"majority": 1.0, "judged_majority": 0.0, "judge": 0.0},
    }


def test_a_gold_answer_that_nobody_gave_is_among_the_hardest() -> None:
    label = LABELS[0].model_copy(update={"reason": "gold answer", "answer": "1", "vote_share": 0.0})
    quality = label_quality([label], [], COMPLETIONS[:2], [], GOLD, LabelConfig())
    assert [(item.num_labels, item.student_agreement) for item in quality.by_vote_share] == [
        (1, 0.5),
        *[(0, None)] * 3,
    ]


def test_gold_labels_are_told_from_pseudo_labels() -> None:
    labels = [LABELS[1].model_copy(update={"reason": "gold answer"})]
    assert label_quality(labels, [], [], [], GOLD, LabelConfig()).upper_bound
    assert not measured(GOLD).upper_bound
