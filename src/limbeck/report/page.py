"""The two pages of a report: HTML that stands alone, and Markdown.

Both show text that models wrote. In HTML, Jinja escapes every value. In Markdown, every value is made
harmless (`limbeck.report.texts`), the same whether a template asks for it or not.
"""

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from limbeck.config import Config
from limbeck.report import figures, plots, texts
from limbeck.report.answers import DECODINGS
from limbeck.report.decision import POLICY
from limbeck.report.model import RunReport

MEANINGS = {
    "teacher": "the larger model",
    "student": "the smaller model as it came",
    "sft_all": "student tuned on all teacher completions",
    "sft_selected": "student tuned on the selected ones",
    "ppo_model": "then PPO with the reward model",
    "ppo_mixed": "then PPO with label agreement, the model where there is no label",
    "ppo_agreement": "then PPO with label agreement alone",
    "ppo_judge": "then PPO with the teacher's own verdict",
    "policy": "the PPO run picked by validation agreement, without gold",
}
RIGHT_OR_WRONG = {True: "right", False: "wrong"}
OPEN_POLICY = "the PPO run again: the last checkpoint within ppo.target_kl"
"""What the policy is where nothing can agree."""
JUDGED = (
    "The judge is the teacher. A judge may like its own answers, and long ones, better than people do "
    "(arXiv 2306.05685, arXiv 2404.13076), and the student was trained to please this one. So a lead over "
    "the teacher is the teacher's opinion: ask people, or another judge, before it is believed."
)
"""What accuracies of open questions are worth."""


def html_page(report: RunReport) -> str:
    """The report as one HTML file without scripts or requests, with its plots inside."""
    drawn = {
        "accuracy": plots.accuracy_plot(report.rows, "good" if report.settings.task.is_open else "right"),
        "labels": plots.label_plot(report.labels) if report.labels else None,
        "reward": plots.reward_plot(report.reward) if report.reward else None,
        "reliability": plots.reward_reliability_plot(report.reward) if report.reward else None,
        "ppo": plots.ppo_plot(report.ppo),
        "monitor": plots.monitor_plot(report.ppo),
    }
    # matplotlib made these and escaped the texts in them.
    safe = {name: Markup(svg or "") for name, svg in drawn.items()}  # noqa: S704
    template = environment("report", html=True).get_template("report.html.jinja")
    return template.render(shared_values(report), plots=safe)


def markdown_page(report: RunReport) -> str:
    """The report as Markdown with tables, for places that show no HTML."""
    return environment("report", html=False).get_template("report.md.jinja").render(shared_values(report))


def environment(folder: str, *, html: bool) -> Environment:
    """Jinja with the report's filters; either way no value reaches a page as it is.

    Args:
        folder: The part of the package that holds the templates.
        html: Whether pages are HTML; else Markdown.
    """
    made = Environment(
        loader=PackageLoader("limbeck", folder),
        autoescape=select_autoescape(["html.jinja"]),
        finalize=None if html else texts.plain,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        "percent": figures.percent,
        "points": figures.points,
        "interval": figures.interval,
        "number": figures.number,
        "tokens": figures.tokens,
        "money": figures.money,
        "count": figures.count,
        "tally": figures.tally,
        "duration": figures.duration,
        "span": figures.span,
        "temperature": figures.temperature,
        "printable": texts.printable,
        "name": texts.name,
        "code": texts.code,
    }
    return made


def _meanings(settings: Config) -> dict[str, str]:
    """What each row is, by the name of the algorithm that was run."""
    meanings = MEANINGS | ({"policy": OPEN_POLICY} if settings.task.is_open else {})
    return {name: text.replace("PPO", settings.ppo.algorithm.upper()) for name, text in meanings.items()}


def shared_values(report: RunReport) -> dict[str, object]:
    """What all templates read: the report, and its rows and comparisons by name."""
    names = list(dict.fromkeys(row.name for row in report.rows))
    trained = report.decision.policy
    measured = {row.decoding for row in report.rows}
    return {
        "report": report,
        "priced": any(row.cost is not None for row in report.lengths),
        "timed": any(row.gpu_hours for row in report.stages),
        "counted": any(row.completion_tokens is not None for row in report.stages),
        "done": {(row.stage, row.name): row for row in report.stages},
        "names": names,
        "candidate": trained and (POLICY if POLICY in names else trained),
        "meanings": _meanings(report.settings) if trained else {},
        "is_open": report.settings.task.is_open,
        "verdicts": {True: "good", False: "not good"} if report.settings.task.is_open else RIGHT_OR_WRONG,
        "judged": JUDGED if report.settings.task.is_open else "",
        "rows": {(row.name, row.decoding): row for row in report.rows},
        "baselines": list(dict.fromkeys(item.b for item in report.comparisons)),
        "decodings": [decoding for decoding in DECODINGS if decoding in measured],
        "titles": {
            "sampled": "Sampled",
            "greedy": "Greedy",
            "majority": f"Majority of {report.settings.evaluate.samples_per_prompt}",
        },
        "compared": {(item.a, item.decoding, item.b): item for item in report.comparisons},
        "settings": report.settings.model_dump_json(indent=2),
    }
