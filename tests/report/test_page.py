"""The pages: hostile text does no harm, nothing is requested, the same report gives the same bytes."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from typing import get_args

import pytest
from markdown_it import MarkdownIt

from limbeck.config import PpoReward, parse_config
from limbeck.report import plots
from limbeck.report.model import PpoStep, RunReport
from limbeck.report.page import html_page, markdown_page

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and whether they nest properly."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def html(report: RunReport) -> str:
    return html_page(report)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_model_text_makes_no_element(page: Page) -> None:
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img", "iframe", "object", "link", "form", "base"}
    assert page.open == []
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_model_text_is_shown_as_it_is(page: Page) -> None:
    shown = "".join(page.texts)
    assert "<script>alert(1)</script>" in shown
    assert "{{ 7 * 7 }}" in shown
    assert "```\n`code``" in shown


def test_nothing_is_requested(page: Page, html: str) -> None:
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster", "data"):
            assert (attributes.get(name) or "#").startswith("#")
    style = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert len(style) == 1
    assert "url(" not in style[0]
    assert "@import" not in style[0]
    policies = [a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == [
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    ]


def test_tables_have_captions_and_scoped_heads(page: Page) -> None:
    heads = [attributes for tag, attributes in page.elements if tag == "th"]
    assert heads
    assert all(attributes.get("scope") for attributes in heads)
    svgs = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert len(svgs) == 6
    assert all(a.get("role") == "img" and a.get("aria-label") for a in svgs)


@pytest.mark.parametrize(("algorithm", "kl"), [("rloo", "kl"), ("grpo", "kl_k3")])
def test_pages_name_the_algorithm_and_show_the_kl_that_it_has(
    report: RunReport, algorithm: str, kl: str
) -> None:
    step = PpoStep(update=1, reward=0.5, length=7.0, agreement=0.4).model_copy(update={kl: 12.34})
    run = report.ppo["model"].model_copy(
        update={"steps": (PpoStep(update=0, validation_agreement=0.6), step)}
    )
    settings = parse_config({"ppo": {"algorithm": algorithm, "samples_per_prompt": 2}})
    made = report.model_copy(update={"settings": settings, "ppo": {"model": run}})
    for text in (html_page(made), markdown_page(made)):
        assert f"then {algorithm.upper()} with the reward model" in text
        assert "PPO" not in text
        assert "12.34 → 12.34" in text


def test_plots_follow_the_theme_and_share_no_group_ids(html: str) -> None:
    assert "var(--series-1)" in html
    assert not re.search(r"#0[1-4]0[1-4]0[1-4]", html)
    ids = re.findall(r'<g id="', html)
    assert ids == []


def test_each_kind_of_reward_has_a_colour_of_its_own_in_both_themes(report: RunReport, html: str) -> None:
    kinds = get_args(PpoReward)
    drawn = plots.monitor_plot(dict.fromkeys(kinds, report.ppo["model"]))
    for number in range(1, len(kinds) + 1):
        assert f"var(--series-{number})" in (drawn or "")
        assert html.count(f"--series-{number}: #") == 2


def test_the_answer_comes_first(page: Page, report: RunReport) -> None:
    headings = [tag for tag, _ in page.elements if tag in ("h1", "h2")]
    assert headings[0] == "h1"
    text = "".join(page.texts)
    assert text.index(report.decision.headline) < text.index(report.decision.reason) < text.index("Accuracy")


def test_the_same_report_gives_the_same_bytes_in_another_process(report: RunReport, html: str) -> None:
    code = (
        "import sys; from limbeck.report.model import RunReport; from limbeck.report.page import html_page;"
        "sys.stdout.write(html_page(RunReport.model_validate_json(sys.stdin.read())))"
    )
    again = subprocess.run(
        [sys.executable, "-c", code],
        input=report.model_dump_json(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert again.stdout == html


def test_json_is_strict_and_reads_back(report: RunReport) -> None:
    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is no JSON")

    text = report.model_dump_json()
    loaded = json.loads(text, parse_constant=refuse)
    assert loaded["reward"]["by_source"]["student"]["pair_accuracy"] is None
    assert loaded["reward"]["by_source"]["teacher"]["auc"] == 0.84
    assert set(loaded["ppo"]) == {"model", "mixed", "agreement"}
    assert loaded["ppo"]["mixed"]["steps"][1]["reward"] == pytest.approx(0.502)
    assert RunReport.model_validate_json(text) == report


def test_markdown_keeps_model_text_inside_its_code_span(report: RunReport) -> None:
    text = markdown_page(report)
    assert "<" not in text
    assert "\n# heading" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    for line in text.splitlines():
        assert line.count("`") % 2 == 0
        outside = "".join(line.split("`")[::2])
        assert "alert" not in outside
        assert "![" not in outside


def test_markdown_tables_have_as_many_cells_in_each_row(report: RunReport) -> None:
    tables = re.findall(r"(?:^\|.*\n)+", markdown_page(report), re.MULTILINE)
    assert len(tables) >= 9
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


def test_without_gold_both_pages_say_so(report_without_gold: RunReport) -> None:
    for text in (html_page(report_without_gold), markdown_page(report_without_gold)):
        assert "Not decided." in text
        assert "no gold answers" in text
        assert not re.search(r"\bnan\b", text, re.IGNORECASE)
    labels = report_without_gold.labels
    assert labels is not None
    assert labels.precision is None
    assert labels.coverage == pytest.approx(17 / 20)


def test_a_report_without_training_figures_is_still_a_page(report: RunReport) -> None:
    """Absent metrics and an empty history leave dashes, not errors."""
    assert report.reward is not None
    bare = report.model_copy(
        update={
            "reward": report.reward.model_copy(
                update={"by_source": {}, "by_vote_share": (), "reliability": {}}
            ),
            "ppo": {k: run.model_copy(update={"steps": ()}) for k, run in report.ppo.items()},
            "examples": (),
        }
    )
    page = Page(html_page(bare))
    assert sum(tag == "svg" for tag, _ in page.elements) == 2
    assert "| `mixed` (picked) | 0 | — |" in markdown_page(bare)


def test_row_names_that_look_like_mathematics_are_drawn_as_text(report: RunReport) -> None:
    rows = tuple(row.model_copy(update={"name": "$x_<b>$"}) for row in report.rows[:1])
    page = Page(html_page(report.model_copy(update={"rows": rows})))
    assert not any(tag == "b" for tag, _ in page.elements)
    assert "".join(page.texts).count("$x_<b>$") == 3  # in the plot and in two tables


HOSTILE_NAMES = [
    "</title><script>alert(1)</script>",
    "![x](http://evil.test/y.png)",
    "`a` | [b](http://evil.test) |\n\n# c",
    "<img src=http://evil.test/z.png onerror=alert(1)>\\",
    "\u202eevil" + "x" * 500,
]


def test_names_of_models_do_no_harm(evaluation_of: Callable[[Sequence[str]], RunReport]) -> None:
    """They come from the user's folders, and stand in tables, plots, sentences and the summary."""
    hostile, tame = evaluation_of(HOSTILE_NAMES), evaluation_of(["a", "b", "c", "d", "e"])
    page, tame_page = Page(html_page(hostile)), Page(html_page(tame))
    tags, tame_tags = ({tag for tag, _ in made.elements} for made in (page, tame_page))
    assert tags == tame_tags
    assert "\u202e" not in "".join(page.texts).partition("All settings")[0]
    assert "x" * 100 not in re.sub(r"s3://\S+", "", "".join(page.texts).partition("Examples")[0])

    def structure(report: RunReport) -> list[str]:
        tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown_page(report))
        parts = [part for token in tokens for part in (token, *(token.children or ()))]
        return [part.type for part in parts if part.type != "text"]

    assert structure(hostile) == structure(tame)


def test_a_page_has_only_the_sections_that_were_made(
    report: RunReport, evaluation_of: Callable[[Sequence[str]], RunReport]
) -> None:
    assert report.labels is not None
    no_votes = report.labels.model_copy(update={"votes": (), "teacher": (), "judge": ()})
    assert plots.label_plot(no_votes) is None
    sections = [
        *("Accuracy", "Fidelity to the teacher", "Length and cost", "Pseudo labels", "Reward model"),
        *("Reinforcement learning", "Data", "Stages", "Examples"),
    ]
    for made, missing in (
        (report, ()),
        (report.model_copy(update={"reward": None, "ppo": {}}), sections[4:6]),
        (report.model_copy(update={"labels": no_votes}), ()),
        (report.model_copy(update={"data": ()}), sections[6:7]),
        (evaluation_of(["one", "two"]), (sections[1], *sections[3:7])),
        (evaluation_of(["one"]), (sections[1], *sections[3:7])),
    ):
        html, markdown = html_page(made), markdown_page(made)
        expected = [name for name in (*sections, "Where it came from") if name not in missing]
        assert re.findall(r"<h2>(.*?)</h2>", html) == expected
        assert re.findall(r"^## (.*)$", markdown, re.MULTILINE) == expected
        assert not re.search(r"<tbody>\s*</tbody>", html)
        assert not re.search(r"<figure>\s*</figure>", html)
        assert not re.search(r"^\|[-:|]+\|\n(?!\|)", markdown, re.MULTILINE)  # a table's head alone
        assert "\n\n\n\n" not in markdown
        assert ("Differences" in html) == ("Differences" in markdown) == bool(made.comparisons)


def test_the_data_are_told_of(report: RunReport) -> None:
    """Their figures, and what was too much alike, with an example."""
    text = " ".join(" ".join(Page(html_page(report)).texts).partition("All settings")[0].split())
    assert "train 1,234 50 5 to 95 7 7 to 7 0 0 to 0 23 near duplicate: 17" in text
    assert "Near duplicate, similarity 0.88: the first is like the second, which stays." in text
    row = "| train | 1,234 | 50 (5 to 95) | 7 (7 to 7) | 0 (0 to 0) | 23 | near duplicate: 17 |"
    assert row in markdown_page(report)


def test_where_nothing_was_trained_no_one_is_called_policy(
    evaluation_of: Callable[[Sequence[str]], RunReport],
) -> None:
    made = evaluation_of(["policy", "teacher"])
    for page in (html_page(made), markdown_page(made)):
        assert "Not decided." in page
        assert "in training" not in page
        assert "larger model" not in page
    assert 'class="policy"' not in html_page(made)
    assert "dashed" in html_page(made)  # a model of the name teacher
    assert "dashed" not in html_page(evaluation_of(["a", "b"]))
