"""The plots of the report, as SVG text to be put into the page.

Each plot is drawn on a figure of its own, without pyplot's global state, and without dates or random
ids: the same report gives the same bytes. Colours are names of the page's CSS variables, so that a
plot follows the light or dark theme.
"""

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from limbeck.label_quality import LabelQuality
from limbeck.report.answers import DECODINGS
from limbeck.report.figures import temperature
from limbeck.report.model import AccuracyRow, PpoRun, RewardReport
from limbeck.report.texts import name as shown_name

# Stand-ins that matplotlib can draw with, replaced by the page's variables in the text.
INK, MUTED, GRID = "#010101", "#020202", "#030303"
SERIES = ("#040401", "#040402", "#040403")
CSS = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    SERIES[0]: "var(--series-1)",
    SERIES[1]: "var(--series-2)",
    SERIES[2]: "var(--series-3)",
}
MARKERS = ("o", "s", "^")
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "limbeck",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}
WIDTH_INCHES = 7.2


def accuracy_plot(rows: Sequence[AccuracyRow]) -> str | None:
    """Held-out accuracy with 95% intervals, a line for each model; None when nothing was measured."""
    measured = [row for row in rows if row.accuracy is not None]
    names = list(dict.fromkeys(row.name for row in measured))
    if not names:
        return None
    with mpl.rc_context(STYLE):
        figure = _figure(0.9 + 0.36 * len(names))
        axes = figure.subplots()
        for index, decoding in enumerate(DECODINGS):
            if of_decoding := [row for row in measured if row.decoding == decoding]:
                _whiskers(axes, of_decoding, names, index, decoding)
        teacher = [r.accuracy for r in measured if (r.name, r.decoding) == ("teacher", "sampled")]
        if teacher and teacher[0] is not None:
            axes.axvline(teacher[0], color=SERIES[0], linewidth=0.8, linestyle="--", zorder=1)
        axes.set_yticks(range(len(names)), [shown_name(name) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        dashed = "; dashed: the teacher, sampled" if teacher else ""
        axes.set_xlabel(f"right answers on held-out prompts{dashed}")
        figure.legend(loc="outside upper right", ncols=3)
        return _svg(figure, "Held-out accuracy of each model with its 95% interval")


def label_plot(labels: LabelQuality) -> str | None:
    """Coverage, and where gold exists precision, of votes by temperature; None when there were no votes."""
    if not labels.votes:
        return None
    rules = list(dict.fromkeys(vote.rule for vote in labels.votes))
    ticks = [temperature(value) for value in dict.fromkeys(vote.temperature for vote in labels.votes)]
    with_gold = any(vote.precision is not None for vote in labels.votes)
    with mpl.rc_context(STYLE):
        figure = _figure(2.5)
        coverage, precision = figure.subplots(1, 2)
        for index, rule in enumerate(rules):
            votes = [vote for vote in labels.votes if vote.rule == rule]
            _dots(coverage, [vote.coverage for vote in votes], index, rule.replace("_", " "))
            _dots(precision, [vote.precision for vote in votes], index, None)
        if with_gold:
            single = _gaps([answers.accuracy for answers in labels.teacher])
            precision.plot(single, "_", color=MUTED, markersize=14, label="single completions")
        precision.set_visible(with_gold)
        for axes, title in ((coverage, "prompts with a label"), (precision, "labels that are right")):
            axes.set_title(title)
            axes.set_xticks(range(len(ticks)), ticks)
            axes.set_xlim(-0.5, len(ticks) - 0.5)
            axes.set_xlabel("temperature of the votes")
            _percent_axis(axes)
        figure.legend(loc="outside upper right", ncols=4)
        return _svg(figure, "Coverage and precision of pseudo labels by temperature")


def reward_plot(reward: RewardReport) -> str | None:
    """AUC and pair accuracy by source, and AUC by vote share; None when nothing was measured."""
    figures = list(reward.by_source.values())
    if all(item.auc is None and item.pair_accuracy is None for item in figures):
        return None
    with mpl.rc_context(STYLE):
        figure = _figure(2.4)
        by_source, by_share = figure.subplots(1, 2)
        _dots(by_source, [item.auc for item in figures], 0, "AUC")
        _dots(by_source, [item.pair_accuracy for item in figures], 1, "pairs ranked right")
        by_source.set_title("by source of the completions")
        by_source.set_xticks(range(len(figures)), list(reward.by_source))
        by_source.set_xlim(-0.6, len(figures) - 0.4)
        _dots(by_share, [item.auc for item in reward.by_vote_share], 0, None)
        by_share.set_title("by vote share of the label")
        by_share.set_xticks(
            range(len(reward.by_vote_share)), [f"{i.low:g} to {i.high:g}" for i in reward.by_vote_share]
        )
        by_share.set_xlim(-0.6, len(reward.by_vote_share) - 0.4)
        by_share.set_visible(bool(reward.by_vote_share))
        for axes in (by_source, by_share):
            axes.axhline(0.5, color=MUTED, linewidth=0.8, linestyle="--")
            axes.set_ylim(min(0.45, axes.dataLim.y0 - 0.05), 1.02)
        figure.legend(loc="outside upper right", ncols=2)
        return _svg(figure, "Ranking quality of the reward model; dashed: chance")


def ppo_plot(runs: Mapping[str, PpoRun]) -> str | None:
    """Reward, KL, length and agreement over the rounds, a line for each kind of reward."""
    if not any(run.steps for run in runs.values()):
        return None
    with mpl.rc_context(STYLE):
        figure = _figure(4.4)
        panels = figure.subplots(2, 2, sharex=True)
        titles = ("mean reward", "KL to the warmed-up student, nats", "tokens of a rollout")
        for axes, title in zip(panels.flat, (*titles, "agreement with pseudo labels"), strict=True):
            axes.set_title(title)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        for axes in panels[1]:
            axes.set_xlabel("round of PPO")
        for index, (kind, run) in enumerate(runs.items()):
            color = SERIES[index % len(SERIES)]
            updates = [step.update for step in run.steps]
            lines = (
                [step.reward for step in run.steps],
                [step.kl for step in run.steps],
                [step.length for step in run.steps],
            )
            for axes, values in zip(panels.flat, lines, strict=False):
                axes.plot(updates, _gaps(values), color=color, linewidth=1.1)
            panels[1, 1].plot(
                updates, _gaps([step.agreement for step in run.steps]), color=color, linewidth=0.7, alpha=0.45
            )
            checked = [step for step in run.steps if step.validation_agreement is not None]
            panels[1, 1].plot(
                [step.update for step in checked],
                _gaps([step.validation_agreement for step in checked]),
                color=color,
                marker=MARKERS[index % len(MARKERS)],
                markersize=4,
                linewidth=1.3,
                label=f"{shown_name(kind)} (picked)" if run.picked else shown_name(kind),
            )
        _percent_axis(panels[1, 1])
        figure.legend(loc="outside upper right", ncols=3)
        return _svg(figure, "Course of the PPO runs: reward, KL, length and agreement over the rounds")


def _figure(height_inches: float) -> Figure:
    figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
    FigureCanvasSVG(figure)
    return figure


def _whiskers(axes: Axes, rows: Sequence[AccuracyRow], names: Sequence[str], index: int, label: str) -> None:
    """Points with intervals; each series sits a little lower than the one before."""
    for row in rows:
        if row.accuracy is None:
            continue
        y = names.index(row.name) + (-0.2, 0.0, 0.2)[index]
        if row.interval is not None:
            axes.plot(row.interval, (y, y), color=SERIES[index], linewidth=1.6, solid_capstyle="butt")
        axes.plot([row.accuracy], [y], MARKERS[index], color=SERIES[index], markersize=4.5)
    axes.plot([], [], f"{MARKERS[index]}-", color=SERIES[index], markersize=4.5, label=label)


def _dots(axes: Axes, values: Sequence[float | None], index: int, label: str | None) -> None:
    """One series over categories; series stand beside each other."""
    places = [place + (index - 0.5) * 0.2 for place in range(len(values))]
    axes.plot(places, _gaps(values), MARKERS[index % 3], color=SERIES[index % 3], markersize=5.5, label=label)


def _percent_axis(axes: Axes) -> None:
    """A vertical axis in whole percent that spans at least 8 points."""
    low, high = axes.get_ylim()
    middle, half = (low + high) / 2, max((high - low) / 2, 0.04)
    axes.set_ylim(middle - half, middle + half)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _gaps(values: Sequence[float | None]) -> list[float]:
    """What was not measured as nan: matplotlib leaves it out."""
    return [float("nan") if value is None else value for value in values]


def _svg(figure: Figure, label: str) -> str:
    """A figure as an `<svg>` element with a label for screen readers, in the page's colours."""
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Ids of groups would stand several times in one page; those of shared shapes are hashes of them.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    for stand_in, variable in CSS.items():
        text = text.replace(stand_in, variable)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1).strip()
