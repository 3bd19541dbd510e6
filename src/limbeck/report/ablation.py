"""The page of an ablation: all rows beside each other, the sweeps as curves, and what the rows share."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.ticker import PercentFormatter

from limbeck.intervals import Interval, holm, paired_p_value, simultaneous_intervals
from limbeck.manifest import Manifest
from limbeck.metrics import Figure
from limbeck.report.accuracy import PromptScores, comparisons
from limbeck.report.answers import DECODINGS
from limbeck.report.drawing import MARKERS, MUTED, SERIES, STYLE, gaps, new_figure, svg
from limbeck.report.model import AccuracyRow, Comparison, Part, RowDecoding
from limbeck.report.page import MEANINGS, environment
from limbeck.variants import SEPARATOR, point

BASELINES = ("sft_selected", "ppo_model")
"""What every row is compared with: the method without its rewards, and the whole method."""
MIN_RESAMPLES = 10_000
"""Of a p-value: fewer could not tell a small one from its multiple by the number of comparisons."""
CORRECTED: RowDecoding = "sampled"
SETTINGS = {
    "reward.source_weight": "lambda: weight of the teacher's rows",
    "label.noise": "share of pseudo labels made wrong",
}
VARIANTS = {
    "sft.num_epochs": "SFT on the selected ones at the compute of the whole method",
    "label.rule": "PPO with gold answers as reward: an upper bound",
    "reward.source_weight": "the whole method with another lambda",
    "label.noise": "the whole method with wrong labels, from the same warmed-up student",
}
OTHERS = {
    "teacher_selected": "the teacher tuned on its own selected completions",
    "ppo_judge": "then PPO with the teacher's P(correct)",
}


class Tested(Part):
    """A difference with its p-value."""

    comparison: Comparison
    p: Figure
    """Two-sided, of this difference alone; None where there are fewer than two prompts."""
    corrected: Figure
    """The same by Holm over all differences of this decoding."""
    simultaneous: Interval | None
    """95% for all differences of this decoding at once."""


class SweepPoint(Part):
    """One point of a sweep."""

    value: float
    row: str
    accuracy: Figure
    interval: Interval | None
    auc: Figure
    """Of the reward model on the student's validation completions, against the labels it was given."""


class Sweep(Part):
    """One setting at several values."""

    setting: str
    points: tuple[SweepPoint, ...]
    """The whole method itself is one of them."""


class Shared(Part):
    """What one stage made for all rows of the page together."""

    stage: str
    outputs: int
    """Different ones: no two of the same inputs and settings, however many rows of the page rest on one."""
    rows: int
    """Rows in them: completions, judgements, labels, answers, or rows that were trained on."""


class AblationReport(Part):
    """What ablation.json holds. Written by the task `compare`."""

    rows: tuple[AccuracyRow, ...]
    differences: tuple[Tested, ...]
    sweeps: tuple[Sweep, ...]
    shared: tuple[Shared, ...]
    completions: int
    """Completions of training prompts that were generated, by teacher and student together."""
    generated_twice: int
    """Of these, how many the same model had been asked for before: one prompt, temperature and sample."""
    seed: int
    num_resamples: int


def differences(scores: PromptScores, num_resamples: int, seed: int) -> tuple[Tested, ...]:
    """Each row against each baseline; a family is all differences of one decoding."""
    found: list[Tested] = []
    compared = comparisons(scores, num_resamples, seed, BASELINES)
    for decoding in DECODINGS:
        family = [item for item in compared if item.decoding == decoding]
        by_prompt = [_by_prompt(scores, item) for item in family]
        resamples = max(num_resamples, MIN_RESAMPLES)
        intervals = simultaneous_intervals(by_prompt, resamples, seed)
        p_values = [_p_value(of_one, resamples, seed) for of_one in by_prompt]
        known = [p for p in p_values if p is not None]
        corrected = iter(holm(known))
        found += [
            Tested(
                comparison=item,
                p=p,
                corrected=None if p is None else next(corrected),
                simultaneous=interval,
            )
            for item, p, interval in zip(family, p_values, intervals, strict=True)
        ]
    return tuple(found)


def _by_prompt(scores: PromptScores, item: Comparison) -> dict[str, float]:
    """The difference on each prompt that both rows have."""
    a, b = scores[item.a, item.decoding], scores[item.b, item.decoding]
    return {prompt: a[prompt] - b[prompt] for prompt in a if prompt in b}


def _p_value(by_prompt: Mapping[str, float], num_resamples: int, seed: int) -> float | None:
    differences = np.array(list(by_prompt.values()), dtype=np.float64)
    return paired_p_value(differences, np.zeros_like(differences), num_resamples, seed)


def sweeps(
    rows: Sequence[AccuracyRow],
    reward_models: Sequence[Manifest],
    base_values: Mapping[str, float],
    full: str = "ppo_model",
) -> tuple[Sweep, ...]:
    """The curves of all settings that were varied by a single number.

    Args:
        rows: Accuracies of all rows.
        reward_models: Of all variants, for their AUC.
        base_values: Setting -> its value in the run itself.
        full: The row that the variants are variants of.
    """
    aucs = {
        item.name.partition(SEPARATOR)[2]: item.metrics.get("reward/auc_student") for item in reward_models
    }
    points: dict[str, list[SweepPoint]] = {}
    for row in rows:
        if row.decoding != CORRECTED:
            continue
        place = point(row.name)
        if place and place[0] == full and place[1] in base_values:
            _, setting, value = place
            points.setdefault(setting, []).append(_sweep_point(row, value, aucs))
    base = next((row for row in rows if (row.name, row.decoding) == (full, CORRECTED)), None)
    for setting, found in points.items():
        if base:
            found.append(_sweep_point(base, base_values[setting], aucs))
    return tuple(
        Sweep(setting=setting, points=tuple(sorted(found, key=lambda item: item.value)))
        for setting, found in points.items()
    )


def _sweep_point(row: AccuracyRow, value: float, aucs: Mapping[str, float | None]) -> SweepPoint:
    return SweepPoint(
        value=value,
        row=row.name,
        accuracy=row.accuracy,
        interval=row.interval,
        auc=aucs.get(row.name.partition(SEPARATOR)[2]),
    )


def shared(manifests: Sequence[Manifest]) -> tuple[Shared, ...]:
    """Outputs and rows of each stage, in the order of the first one."""
    stages: dict[str, list[Manifest]] = {}
    for item in manifests:
        stages.setdefault(item.stage, []).append(item)
    counted = []
    for stage, items in stages.items():
        outputs = {item.uri: item for item in items}
        rows = sum(item.num_rows for item in outputs.values())
        counted.append(Shared(stage=stage, outputs=len(outputs), rows=rows))
    return tuple(counted)


def meaning(name: str) -> str:
    """What a row is."""
    own, _, variant = name.partition(SEPARATOR)
    setting = variant.partition("=")[0]
    return VARIANTS.get(setting) or (MEANINGS | OTHERS).get(own, "")


def sweep_plot(sweep: Sweep) -> str:
    """Accuracy of the policy and AUC of the reward model over the values of a setting."""
    with mpl.rc_context(STYLE):
        figure = new_figure(2.5)
        accuracy, auc = figure.subplots(1, 2)
        values = [item.value for item in sweep.points]
        centre = gaps([item.accuracy for item in sweep.points])
        bounds = [item.interval or (float("nan"), float("nan")) for item in sweep.points]
        accuracy.vlines(
            values, [low for low, _ in bounds], [high for _, high in bounds], color=SERIES[0], linewidth=1.2
        )
        accuracy.plot(values, centre, f"{MARKERS[0]}-", color=SERIES[0], markersize=5, linewidth=1.1)
        accuracy.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        accuracy.set_title("right answers, sampled")
        auc.plot(
            values,
            gaps([item.auc for item in sweep.points]),
            f"{MARKERS[1]}-",
            color=SERIES[1],
            markersize=5,
            linewidth=1.1,
        )
        auc.axhline(0.5, color=MUTED, linewidth=0.8, linestyle="--")
        auc.set_title("AUC of the reward model")
        for axes in (accuracy, auc):
            axes.set_xlabel(SETTINGS.get(sweep.setting, sweep.setting))
        return svg(figure, f"Accuracy and AUC by {sweep.setting}")


def pages(report: AblationReport) -> dict[str, str]:
    """The page as JSON, as HTML that stands alone, and as Markdown, by file name."""
    values = {
        "report": report,
        "names": list(dict.fromkeys(row.name for row in report.rows)),
        "rows": {(row.name, row.decoding): row for row in report.rows},
        "decodings": [one for one in DECODINGS if any(row.decoding == one for row in report.rows)],
        "baselines": [one for one in BASELINES if any(row.name == one for row in report.rows)],
        "differences": {
            (item.comparison.a, item.comparison.decoding, item.comparison.b): item
            for item in report.differences
        },
        "meaning": meaning,
        "settings": SETTINGS,
    }
    # matplotlib made these and escaped the texts in them.
    plots = [Markup(sweep_plot(sweep)) for sweep in report.sweeps]  # noqa: S704
    html = environment("report", html=True).get_template("ablation.html.jinja")
    markdown = environment("report", html=False).get_template("ablation.md.jinja")
    return {
        "ablation.json": report.model_dump_json(indent=1) + "\n",
        "ablation.html": html.render(values, plots=plots),
        "ablation.md": markdown.render(values),
    }
