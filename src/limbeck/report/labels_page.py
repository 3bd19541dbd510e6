"""The label report: a page of its own on pseudo labels and the judge, and the same as JSON.

It shows texts of models: Jinja escapes every value.
"""

from collections.abc import Iterable, Mapping

from markupsafe import Markup

from limbeck.label_quality.model import LabelQuality, WrongJudgement, WrongLabel
from limbeck.metrics import Figure
from limbeck.records import Completion, Prompt
from limbeck.report import label_plots
from limbeck.report.model import Part
from limbeck.report.page import environment


class Disagreement(Part):
    """One of the worst disagreements with gold, with its texts."""

    prompt: str
    text: str | None
    """The completion; None where no completion gave this answer."""
    answer: str | None
    gold: str
    vote_share: Figure = None
    """Of a label."""
    p_correct: Figure = None
    """Of a judgement."""


class LabelReport(Part):
    """What labels.json holds. Written by the stage `report`; read by people's tools."""

    quality: LabelQuality
    wrong_labels: tuple[Disagreement, ...]
    """Many votes for a wrong answer."""
    wrong_judgements: tuple[Disagreement, ...]
    """A sure judge of a wrong answer."""


def label_report(
    quality: LabelQuality, prompts: Iterable[Prompt], completions: Iterable[Completion]
) -> LabelReport:
    """Add the texts of the worst disagreements.

    Args:
        quality: The figures.
        prompts: Train prompts, one by one: only the texts that are shown are kept.
        completions: Teacher completions, likewise.
    """
    worst = (*quality.wrong_labels, *quality.wrong_judgements)
    prompt_ids, completion_ids = (
        {getattr(item, key) for item in worst} for key in ("prompt_id", "completion_id")
    )
    asked = {row.prompt_id: row.prompt for row in (prompts if worst else ()) if row.prompt_id in prompt_ids}
    texts = {
        row.completion_id: row.text
        for row in (completions if worst else ())
        if row.completion_id in completion_ids
    }

    def shown(
        item: WrongLabel | WrongJudgement, vote_share: float | None = None, p_correct: float | None = None
    ) -> Disagreement:
        return Disagreement(
            prompt=asked.get(item.prompt_id, ""),
            text=_text(item.completion_id, texts),
            answer=item.answer,
            gold=item.gold,
            vote_share=vote_share,
            p_correct=p_correct,
        )

    return LabelReport(
        quality=quality,
        wrong_labels=tuple(shown(item, vote_share=item.vote_share) for item in quality.wrong_labels),
        wrong_judgements=tuple(shown(item, p_correct=item.p_correct) for item in quality.wrong_judgements),
    )


def labels_page(report: LabelReport, *, is_open: bool = False) -> str:
    """The label report as one HTML file without scripts or requests, with its plots inside.

    Args:
        report: From `label_report`.
        is_open: Whether the questions are open, so that nothing agrees with a label.
    """
    quality = report.quality
    drawn = {
        "thresholds": label_plots.threshold_plot(quality),
        "trade_off": label_plots.trade_off_plot(quality),
        "reliable": label_plots.reliable_plot(quality),
        "judge": label_plots.judge_plot(quality.calibration),
    }
    # matplotlib made these and escaped the texts in them.
    safe = {name: Markup(plot or "") for name, plot in drawn.items()}  # noqa: S704
    template = environment("report", html=True).get_template("labels.html.jinja")
    return template.render(
        report=report, quality=quality, plots=safe, calibrated=label_plots.NAMES, is_open=is_open
    )


def _text(completion_id: str | None, texts: Mapping[str, str]) -> str | None:
    return None if completion_id is None else texts.get(completion_id)
