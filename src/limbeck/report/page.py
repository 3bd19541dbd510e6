"""The two pages of a report: HTML that stands alone, and Markdown.

Both show text that models wrote. In HTML, Jinja escapes every value. In Markdown, every value loses
the characters that could end a code span or a table cell, or begin a tag.
"""

import re

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from limbeck.report import figures, plots
from limbeck.report.accuracy import BASELINES, DECODINGS
from limbeck.report.model import RunReport

SHOWN_CHARS = 1500
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters, and those that turn the direction of the text around them."""
HARMLESS = str.maketrans({"`": "ˋ", "|": "¦", "<": "‹", ">": "›"})  # noqa: RUF001 (look-alikes on purpose)

MEANINGS = {
    "teacher": "the larger model",
    "student": "the smaller model as it came",
    "sft_all": "student tuned on all teacher completions",
    "sft_selected": "student tuned on the selected ones",
    "ppo_model": "then PPO with the reward model",
    "ppo_mixed": "then PPO with label agreement, the model where there is no label",
    "ppo_agreement": "then PPO with label agreement alone",
    "policy": "the PPO run picked by validation agreement, without gold",
}


def html_page(report: RunReport) -> str:
    """The report as one HTML file without scripts or requests, with its plots inside."""
    drawn = {
        "accuracy": plots.accuracy_plot(report.rows),
        "labels": plots.label_plot(report.labels),
        "reward": plots.reward_plot(report.reward),
        "ppo": plots.ppo_plot(report.ppo),
    }
    # matplotlib made these and escaped the texts in them.
    safe = {name: Markup(svg or "") for name, svg in drawn.items()}  # noqa: S704
    environment = _environment(html=True)
    return environment.get_template("report.html.jinja").render(_values(report), plots=safe)


def markdown_page(report: RunReport) -> str:
    """The report as Markdown with tables, for places that show no HTML."""
    return _environment(html=False).get_template("report.md.jinja").render(_values(report))


def printable(text: str) -> str:
    """A text with every character visible, cut to what a page needs; never empty."""
    if not text.strip():
        return "(empty)"
    hidden = len(text) - SHOWN_CHARS
    ending = f" … ({hidden:,} more characters)" if hidden > 0 else ""
    return UNPRINTABLE.sub("\ufffd", text[:SHOWN_CHARS]) + ending


def harmless(value: object) -> object:
    """A value for Markdown: one line that ends no code span or table cell and begins no tag."""
    if not isinstance(value, str):
        return value
    text = UNPRINTABLE.sub("\ufffd", value.replace("\n", " ⏎ "))
    return " ".join(text.translate(HARMLESS).split())


def _environment(*, html: bool) -> Environment:
    """Jinja with the report's filters; either way no value reaches a page as it is."""
    environment = Environment(
        loader=PackageLoader("limbeck", "report"),
        autoescape=select_autoescape(["html.jinja"]),
        finalize=None if html else harmless,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": figures.percent,
        "points": figures.points,
        "interval": figures.interval,
        "number": figures.number,
        "count": figures.count,
        "duration": figures.duration,
        "temperature": figures.temperature,
        "printable": printable,
    }
    return environment


def _values(report: RunReport) -> dict[str, object]:
    """What both templates read: the report, and its rows and comparisons by name."""
    return {
        "report": report,
        "names": list(dict.fromkeys(row.name for row in report.rows)),
        "meanings": MEANINGS,
        "rows": {(row.name, row.decoding): row for row in report.rows},
        "baselines": BASELINES,
        "decodings": DECODINGS,
        "compared": {(item.a, item.decoding, item.b): item for item in report.comparisons},
        "settings": report.settings.model_dump_json(indent=2),
    }
