"""How the plots of the report are drawn: their look, their colours, and from a figure to SVG text.

Each plot is drawn on a figure of its own, without pyplot's global state, and without dates or random
ids: the same report gives the same bytes. Colours are names of the page's CSS variables, so that a
plot follows the light or dark theme.
"""

import io
import re
from collections.abc import Sequence
from html import escape
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

# Stand-ins that matplotlib can draw with, replaced by the page's variables in the text.
INK, MUTED, GRID = "#010101", "#020202", "#030303"
SERIES = ("#040401", "#040402", "#040403", "#040404")
CSS = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    SERIES[0]: "var(--series-1)",
    SERIES[1]: "var(--series-2)",
    SERIES[2]: "var(--series-3)",
    SERIES[3]: "var(--series-4)",
}
MARKERS = ("o", "s", "^", "D")
"""As many as there are kinds of PPO's reward: each has a look of its own."""
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


def new_figure(height_inches: float) -> Figure:
    """An empty figure of the page's width."""
    figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
    FigureCanvasSVG(figure)
    return figure


def dots(axes: Axes, values: Sequence[float | None], index: int, label: str | None) -> None:
    """One series over categories; series stand beside each other."""
    places = [place + (index - 0.5) * 0.2 for place in range(len(values))]
    look = index % len(SERIES)
    axes.plot(places, gaps(values), MARKERS[look], color=SERIES[look], markersize=5.5, label=label)


def percent_axis(axes: Axes) -> None:
    """A vertical axis in whole percent that spans at least 8 points."""
    low, high = axes.get_ylim()
    middle, half = (low + high) / 2, max((high - low) / 2, 0.04)
    axes.set_ylim(middle - half, middle + half)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def gaps(values: Sequence[float | None]) -> list[float]:
    """What was not measured as nan: matplotlib leaves it out."""
    return [float("nan") if value is None else value for value in values]


def svg(figure: Figure, label: str) -> str:
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
