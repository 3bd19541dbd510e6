"""The plots of the report, as SVG text to be put into the page."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from limbeck.label_quality.model import LabelQuality
from limbeck.metrics import ReliabilityBin
from limbeck.report.answers import DECODINGS
from limbeck.report.drawing import MARKERS, MUTED, SERIES, STYLE, dots, gaps, new_figure, percent_axis, svg
from limbeck.report.figures import temperature
from limbeck.report.model import AccuracyRow, PpoRun, RewardReport
from limbeck.report.texts import name as shown_name


def accuracy_plot(rows: Sequence[AccuracyRow], right: str = "right") -> str | None:
    """Held-out accuracy with 95% intervals, a line for each model; None when nothing was measured.

    Args:
        rows: All accuracies.
        right: What answers that count are called.
    """
    measured = [row for row in rows if row.accuracy is not None]
    names = list(dict.fromkeys(row.name for row in measured))
    if not names:
        return None
    with mpl.rc_context(STYLE):
        figure = new_figure(0.9 + 0.36 * len(names))
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
        axes.set_xlabel(f"{right} answers on held-out prompts{dashed}")
        figure.legend(loc="outside upper right", ncols=3)
        return svg(figure, "Held-out accuracy of each model with its 95% interval")


def label_plot(labels: LabelQuality) -> str | None:
    """Coverage, and where gold exists precision, of votes by temperature; None when there were no votes."""
    if not labels.votes:
        return None
    rules = list(dict.fromkeys(vote.rule for vote in labels.votes))
    ticks = [temperature(value) for value in dict.fromkeys(vote.temperature for vote in labels.votes)]
    with_gold = any(vote.precision is not None for vote in labels.votes)
    with mpl.rc_context(STYLE):
        figure = new_figure(2.5)
        coverage, precision = figure.subplots(1, 2)
        for index, rule in enumerate(rules):
            votes = [vote for vote in labels.votes if vote.rule == rule]
            dots(coverage, [vote.coverage for vote in votes], index, rule.replace("_", " "))
            dots(precision, [vote.precision for vote in votes], index, None)
        if with_gold:
            single = gaps([answers.accuracy for answers in labels.teacher])
            precision.plot(single, "_", color=MUTED, markersize=14, label="single completions")
        precision.set_visible(with_gold)
        for axes, title in ((coverage, "prompts with a label"), (precision, "labels that are right")):
            axes.set_title(title)
            axes.set_xticks(range(len(ticks)), ticks)
            axes.set_xlim(-0.5, len(ticks) - 0.5)
            axes.set_xlabel("temperature of the votes")
            percent_axis(axes)
        figure.legend(loc="outside upper right", ncols=4)
        return svg(figure, "Coverage and precision of pseudo labels by temperature")


def reward_plot(reward: RewardReport) -> str | None:
    """AUC and pair accuracy by source, and AUC by vote share; None when nothing was measured."""
    figures = list(reward.by_source.values())
    if all(item.auc is None and item.pair_accuracy is None for item in figures):
        return None
    with mpl.rc_context(STYLE):
        figure = new_figure(2.4)
        by_source, by_share = figure.subplots(1, 2)
        dots(by_source, [item.auc for item in figures], 0, "AUC")
        dots(by_source, [item.pair_accuracy for item in figures], 1, "pairs ranked right")
        by_source.set_title("by source of the completions")
        by_source.set_xticks(range(len(figures)), list(reward.by_source))
        by_source.set_xlim(-0.6, len(figures) - 0.4)
        dots(by_share, [item.auc for item in reward.by_vote_share], 0, None)
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
        return svg(figure, "Ranking quality of the reward model; dashed: chance")


def reward_reliability_plot(reward: RewardReport) -> str | None:
    """Predicted P(good) against the share that is good, by source; None for a model without these figures."""
    if not any(item.count for bins in reward.reliability.values() for item in bins):
        return None
    with mpl.rc_context(STYLE):
        figure = new_figure(2.6)
        reliability_panels(figure.subplots(1, 2), reward.reliability, "good by pseudo label")
        figure.legend(loc="outside upper right", ncols=2)
        return svg(figure, "Reliability of the reward model by source; dashed: perfect calibration")


def reliability_panels(
    panels: Sequence[Axes], measured: Mapping[str, Sequence[ReliabilityBin]], outcome: str
) -> None:
    """The reliability diagram, and how many predictions lie where.

    Args:
        panels: Two axes.
        measured: The bins of each series, by the series' name.
        outcome: What the vertical axis counts.
    """
    diagram, counts = panels
    diagram.plot((0, 1), (0, 1), color=MUTED, linewidth=0.8, linestyle="--")
    for index, (name, bins) in enumerate(measured.items()):
        color, marker = SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)]
        full = [item for item in bins if item.count]
        observed = gaps([item.observed for item in full])
        predicted = gaps([item.predicted for item in full])
        diagram.plot(predicted, observed, f"{marker}-", color=color, markersize=4, linewidth=1.1, label=name)
        total = sum(item.count for item in bins) or 1
        counts.stairs(
            [item.count / total for item in bins], [bins[0].low, *(item.high for item in bins)], color=color
        )
    diagram.set_title(outcome)
    counts.set_title("predictions, share")
    for axes in panels:
        axes.set_xlabel("predicted probability")
        axes.set_xlim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    diagram.set_ylim(-0.03, 1.03)


def monitor_plot(runs: Mapping[str, PpoRun]) -> str | None:
    """Proxy, agreement and length on the validation prompts, a line for each kind of reward."""
    measured = {
        kind: [step for step in run.steps if step.validation_proxy is not None] for kind, run in runs.items()
    }
    if not any(measured.values()):
        return None
    with mpl.rc_context(STYLE):
        figure = new_figure(2.5)
        against_agreement, against_length = figure.subplots(1, 2, sharey=True)
        for index, (kind, steps) in enumerate(measured.items()):
            color, marker = SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)]
            proxy = gaps([step.validation_proxy for step in steps])
            lines = {
                against_agreement: gaps([step.validation_agreement for step in steps]),
                against_length: gaps([step.validation_length for step in steps]),
            }
            for axes, values in lines.items():
                label = shown_name(kind) if axes is against_agreement else None
                axes.plot(values, proxy, f"{marker}-", color=color, markersize=4, linewidth=0.9, label=label)
                axes.plot(values[-1:], proxy[-1:], marker, color=color, markersize=8)
        agreed = any(step.validation_agreement is not None for steps in measured.values() for step in steps)
        against_agreement.set_visible(agreed)
        (against_agreement if agreed else against_length).set_title("reward model's mean score")
        against_agreement.set_xlabel("agreement with pseudo labels")
        against_agreement.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        against_length.set_xlabel("tokens of a completion")
        figure.legend(loc="outside upper right", ncols=3)
        return svg(figure, "The monitor of the PPO runs: proxy reward against agreement and against length")


def ppo_plot(runs: Mapping[str, PpoRun]) -> str | None:
    """Reward, KL, length and agreement over the rounds, a line for each kind of reward."""
    if not any(run.steps for run in runs.values()):
        return None
    with mpl.rc_context(STYLE):
        figure = new_figure(4.4)
        panels = figure.subplots(2, 2, sharex=True)
        titles = ("mean reward", "KL to the warmed-up student, nats", "tokens of a rollout")
        for axes, title in zip(panels.flat, (*titles, "agreement with pseudo labels"), strict=True):
            axes.set_title(title)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        for axes in panels[1]:
            axes.set_xlabel("round")
        for index, (kind, run) in enumerate(runs.items()):
            color = SERIES[index % len(SERIES)]
            updates = [step.update for step in run.steps]
            lines = (
                [step.reward for step in run.steps],
                [step.shown_kl for step in run.steps],
                [step.length for step in run.steps],
            )
            for axes, values in zip(panels.flat, lines, strict=False):
                axes.plot(updates, gaps(values), color=color, linewidth=1.1)
            panels[1, 1].plot(
                updates, gaps([step.agreement for step in run.steps]), color=color, linewidth=0.7, alpha=0.45
            )
            checked = [step for step in run.steps if step.validation_agreement is not None]
            panels[1, 1].plot(
                [step.update for step in checked],
                gaps([step.validation_agreement for step in checked]),
                color=color,
                marker=MARKERS[index % len(MARKERS)],
                markersize=4,
                linewidth=1.3,
                label=f"{shown_name(kind)} (picked)" if run.picked else shown_name(kind),
            )
        steps = [step for run in runs.values() for step in run.steps]
        panels[1, 1].set_visible(any(step.agreement is not None for step in steps))
        percent_axis(panels[1, 1])
        figure.legend(loc="outside upper right", ncols=3)
        return svg(
            figure, "Course of reinforcement learning: reward, KL, length and agreement over the rounds"
        )


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
