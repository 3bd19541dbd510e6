"""The page of the label report: hostile text does no harm, and it says what was measured and what was not."""

import re
from collections.abc import Callable

import pytest

from limbeck.label_quality.model import PositionBias
from limbeck.report import label_plots
from limbeck.report.decision import of_upper_bound
from limbeck.report.labels_page import LabelReport, labels_page
from limbeck.report.model import RunReport
from limbeck.report.page import html_page, markdown_page
from tests.report.test_page import Page

LabelsOf = Callable[[RunReport], LabelReport]


def test_model_text_is_shown_as_it_is_and_makes_no_element(report: RunReport, labels_of: LabelsOf) -> None:
    html = labels_page(labels_of(report))
    page = Page(html)
    assert page.open == []
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img", "iframe", "object", "link", "form", "base"}
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert "<script>alert(1)</script>" in "".join(page.texts)
    assert "\u202e" not in "".join(page.texts)
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster", "data"):
            assert (attributes.get(name) or "#").startswith("#")
    assert "default-src 'none'" in html


def test_every_part_is_there_and_the_same_report_gives_the_same_bytes(
    report: RunReport, labels_of: LabelsOf
) -> None:
    made = labels_of(report)
    html = labels_page(made)
    assert html == labels_page(LabelReport.model_validate_json(made.model_dump_json()))
    assert re.findall(r"<h2>(.*?)</h2>", html) == [
        "Difficulty",
        "Reliable labels",
        "Thresholds of the vote share",
        "The judge",
        "Wrong with many votes",
        "Wrong with a sure judge",
    ]
    assert html.count("<svg ") == 4
    assert re.findall(r'<g id="', html) == []
    assert not re.search(r"#0[1-4]0[1-4]0[1-4]", html)
    assert "60 completions were judged in both orders" in html
    assert "0.0% of the verdicts turn" in html


def test_without_gold_it_says_so_and_shows_what_needs_none(
    report_without_gold: RunReport, labels_of: LabelsOf
) -> None:
    made = labels_of(report_without_gold)
    html = labels_page(made)
    assert "There are no gold answers" in html
    assert (made.wrong_labels, made.wrong_judgements) == ((), ())
    assert label_plots.trade_off_plot(made.quality) is None
    assert label_plots.judge_plot(made.quality.calibration) is None
    assert re.findall(r"<h2>(.*?)</h2>", html) == [
        "Difficulty",
        "Reliable labels",
        "Thresholds of the vote share",
        "The judge",
    ]
    assert not re.search(r"\bnan\b", "".join(Page(html).texts), re.IGNORECASE)


def test_labels_alone_are_still_a_page(report: RunReport, labels_of: LabelsOf) -> None:
    """`distill_rewards`: no completions or judgements of the teacher."""
    made = labels_of(report)
    bare = made.quality.model_copy(
        update=dict.fromkeys(("votes", "curves", "by_samples", "judge", "calibration", "teacher"), ())
        | {"length": None, "position": None}
    )
    html = labels_page(made.model_copy(update={"quality": bare, "wrong_labels": (), "wrong_judgements": ()}))
    assert re.findall(r"<h2>(.*?)</h2>", html) == ["Difficulty"]
    assert "<figure>" not in html


def test_one_order_alone_leaves_the_position_unmeasured(report: RunReport, labels_of: LabelsOf) -> None:
    made = labels_of(report)
    assert isinstance(made.quality.position, PositionBias)
    once = made.quality.model_copy(update={"position": None})
    assert "was not measured" in labels_page(made.model_copy(update={"quality": once}))


def test_gold_labels_are_called_an_upper_bound_on_every_page_and_nothing_is_promoted(
    report: RunReport, labels_of: LabelsOf
) -> None:
    assert report.labels is not None
    gold = report.labels.model_copy(update={"rule": "gold"})
    decision = of_upper_bound(report.decision)
    bound = report.model_copy(update={"labels": gold, "decision": decision})
    assert (decision.promote, decision.outcome) == (False, "not decided")
    for page in (html_page(bound), markdown_page(bound), labels_page(labels_of(bound))):
        assert "pper bound" in page
        assert "not the method" in page
        assert "No gold answer" not in page
    for page in (html_page(report), markdown_page(report), labels_page(labels_of(report))):
        assert "pper bound" not in page


@pytest.mark.parametrize("rule", ["majority", "judged_majority", "judge", "gold"])
def test_the_trade_off_is_drawn_for_the_rule_of_the_run(report: RunReport, rule: str) -> None:
    assert report.labels is not None
    drawn = label_plots.trade_off_plot(report.labels.model_copy(update={"rule": rule}))
    shown = {"gold": "majority"}.get(rule, rule).replace("_", " ")
    assert drawn
    assert f"{shown}, by temperature" in drawn


def test_difficulty_is_shown_by_votes_on_both_pages(report: RunReport, labels_of: LabelsOf) -> None:
    labels = report.labels
    assert labels is not None
    hard, *others = labels.by_vote_share
    hard = hard.model_copy(update={"num_labels": 1234, "precision": 0.321, "student_agreement": 0.123})
    shown = report.model_copy(update={"labels": labels.model_copy(update={"by_vote_share": (hard, *others)})})
    row = '<th scope="row">up to 25.0%</th><td>1,234</td><td>32.1%</td><td>12.3%</td>'
    assert row in labels_page(labels_of(shown))
    assert row in html_page(shown)
    assert "| up to 25.0% | 1,234 | 32.1% | 12.3% |" in markdown_page(shown)
