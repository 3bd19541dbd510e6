"""The plots of the label report, as SVG text to be put into its page."""

from collections.abc import Iterable, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullFormatter, PercentFormatter

from limbeck.label_quality.model import Calibration, Curve, LabelQuality
from limbeck.report.drawing import MARKERS, MUTED, SERIES, STYLE, dots, gaps, new_figure, percent_axis, svg
from limbeck.report.figures import temperature
from limbeck.report.plots import reliability_panels

NAMES = {"none": "as the judge says", "majority": "calibrated by votes"}


def threshold_plot(labels: LabelQuality) -> str | None:
    """Coverage and precision over the threshold of the vote share, by rule; None without votes."""
    curves = [curve for curve in labels.curves if curve.temperature is None]
    if not curves:
        return None
    with mpl.rc_context(STYLE):
        figure = new_figure(2.6)
        coverage, precision = figure.subplots(1, 2)
        for index, curve in enumerate(curves):
            at = [point.min_vote_share for point in curve.points]
            style = {"color": SERIES[index % len(SERIES)], "linewidth": 1.2}
            name = _words(curve.rule)
            coverage.plot(at, gaps([point.coverage for point in curve.points]), label=name, **style)
            precision.plot(at, gaps([point.precision for point in curve.points]), **style)
        precision.set_visible(_has_gold(curves))
        for axes, title in ((coverage, "prompts with a label"), (precision, "labels that are right")):
            axes.set_title(title)
            axes.set_xlabel("least vote share")
            percent_axis(axes)
        figure.legend(loc="outside upper right", ncols=3)
        return svg(figure, "Coverage and precision of pseudo labels over the threshold of the vote share")


def trade_off_plot(labels: LabelQuality) -> str | None:
    """Precision against coverage: by rule, and of the run's rule by temperature; None without gold."""
    if not _has_gold(labels.curves):
        return None
    rules = [curve for curve in labels.curves if curve.temperature is None]
    own = labels.rule if labels.rule in {curve.rule for curve in rules} else "majority"
    temperatures = [c for c in labels.curves if c.rule == own and c.temperature is not None]
    with mpl.rc_context(STYLE):
        figure = new_figure(2.8)
        by_rule, by_temperature = figure.subplots(1, 2, sharex=True, sharey=True)
        _curves(by_rule, [(_words(curve.rule), curve) for curve in rules])
        _curves(by_temperature, [(temperature(curve.temperature), curve) for curve in temperatures])
        by_rule.set_title("labels that are right, by rule")
        by_temperature.set_title(f"{_words(own)}, by temperature")
        for axes in (by_rule, by_temperature):
            axes.set_xlabel("prompts with a label")
            axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            axes.legend(loc="lower left", fontsize=8)
        percent_axis(by_rule)
        return svg(figure, "Precision against coverage of pseudo labels, by rule and by temperature")


def reliable_plot(labels: LabelQuality) -> str | None:
    """Prompts without a reliable label, and how right the others are: by temperature, by number of samples.

    Analogues of the paper's Fig. 3 and Fig. 4 (arXiv 2502.19557): that the first one is the share of prompts
    without reliable label is known of it, all else is ours.
    """
    if not labels.votes:
        return None
    rules = list(dict.fromkeys(vote.rule for vote in labels.votes))
    ticks = [temperature(value) for value in dict.fromkeys(vote.temperature for vote in labels.votes)]
    with mpl.rc_context(STYLE):
        figure = new_figure(4.6)
        panels = figure.subplots(2, 2)
        for index, rule in enumerate(rules):
            votes = [vote for vote in labels.votes if vote.rule == rule]
            samples = [item for item in labels.by_samples if item.rule == rule]
            dots(panels[0, 0], _without(vote.coverage for vote in votes), index, _words(rule))
            dots(panels[1, 0], [vote.precision for vote in votes], index, None)
            style = f"{MARKERS[index % len(MARKERS)]}-"
            look = {"color": SERIES[index % len(SERIES)], "markersize": 4.5, "linewidth": 0.9}
            counts = [item.num_samples for item in samples]
            panels[0, 1].plot(counts, gaps(_without(item.coverage for item in samples)), style, **look)
            panels[1, 1].plot(counts, gaps([item.precision for item in samples]), style, **look)
        single = gaps([answers.accuracy for answers in labels.teacher])
        panels[1, 0].plot(single, "_", color=MUTED, markersize=14, label="single completions")
        for row, title in enumerate(("prompts without a label", "labels that are right")):
            for axes in panels[row]:
                axes.set_title(title)
                axes.set_visible(row == 0 or any(vote.precision is not None for vote in labels.votes))
                percent_axis(axes)
            panels[row, 0].set_xticks(range(len(ticks)), ticks)
            panels[row, 0].set_xlim(-0.5, len(ticks) - 0.5)
            panels[row, 0].set_xlabel("temperature of the votes")
            _samples_axis(panels[row, 1], sorted({item.num_samples for item in labels.by_samples}))
        figure.legend(loc="outside upper right", ncols=4)
        return svg(figure, "Prompts without a label and precision, by temperature and number of samples")


def judge_plot(calibration: Sequence[Calibration]) -> str | None:
    """Reliability of P(correct), before and after calibration; None without gold or judgements."""
    if not calibration:
        return None
    with mpl.rc_context(STYLE):
        figure = new_figure(2.6)
        measured = {NAMES[item.calibrate]: item.bins for item in calibration}
        reliability_panels(figure.subplots(1, 2), measured, "right by gold")
        figure.legend(loc="outside upper right", ncols=2)
        return svg(figure, "Reliability of the judge's P(correct); dashed: perfect calibration")


def _has_gold(curves: Iterable[Curve]) -> bool:
    """Whether any precision was measured."""
    return any(point.precision is not None for curve in curves for point in curve.points)


def _curves(axes: Axes, curves: Sequence[tuple[str, Curve]]) -> None:
    """Precision over coverage, a line for each curve; the large mark is at a vote share of 0."""
    for index, (name, curve) in enumerate(curves):
        color, marker = SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)]
        coverage = gaps([point.coverage for point in curve.points])
        precision = gaps([point.precision for point in curve.points])
        axes.plot(coverage, precision, color=color, linewidth=1.1)
        axes.plot(coverage[:1], precision[:1], f"{marker}-", color=color, markersize=5.5, label=name)


def _samples_axis(axes: Axes, counts: Sequence[int]) -> None:
    """A horizontal axis of doubling numbers."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator([float(count) for count in counts]))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(list(counts), [str(count) for count in counts])
    axes.set_xlabel("completions of a prompt")


def _without(coverage: Iterable[float | None]) -> list[float | None]:
    """The share of prompts without a label."""
    return [None if value is None else 1 - value for value in coverage]


def _words(rule: str) -> str:
    return rule.replace("_", " ")
