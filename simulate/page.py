"""Tables and plots of docs/simulation.md: its text is written by hand, tables lie between marks."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from limbeck.manifest import Manifest
from limbeck.storage import StoredObject
from simulate.scenario import Protocol
from simulate.sweep import (
    MAX_LEASE,
    MAX_LOAD,
    MAX_LOST_ROWS,
    PREEMPTION_SECONDS,
    VALUES,
    Measured,
    Parameter,
    Run,
    recommended,
)

NAMES: dict[float, str] = {1800.0: "30 min", 7200.0: "2 h", 43200.0: "12 h", 259200.0: "3 d"}
PRESENT = Protocol()
SETTABLE: tuple[Parameter, ...] = ("commit_seconds", "lease_seconds", "rows_per_part")
"""What has a default that suits every run."""
UNITS: dict[Parameter, str] = {
    "num_shards": "`num_shards`",
    "commit_seconds": "`commit_seconds`",
    "lease_seconds": "lease, seconds",
    "rows_per_part": "`rows_per_part`",
}


def write(runs: Sequence[Run], page: Path) -> None:
    """Put the tables into the page and the plots beside it, in a folder of its name."""
    text = page.read_text(encoding="utf-8")
    for name, lines in tables(runs).items():
        head, mark, rest = text.partition(f"<!-- {name} -->\n")
        _, end, rest = rest.partition("<!-- end -->")
        if not end:
            raise ValueError(f"{page} has no place for the table {name}")
        text = "\n".join([head + mark + lines[0], *lines[1:], end + rest])
    page.write_text(text, encoding="utf-8")
    folder = page.with_suffix("")
    folder.mkdir(exist_ok=True)
    for name, figure in plots(runs).items():
        figure.savefig(folder / f"{name}.png", dpi=110)


def tables(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Lines of Markdown, by the name of their place."""
    made: dict[str, list[str]] = {parameter: _sweep_table(runs, parameter) for parameter in VALUES}
    return {**made, "world": _world_table(runs), "chosen": _chosen_table(runs), "manifests": _manifests(runs)}


def plots(runs: Sequence[Run]) -> dict[str, Figure]:
    """Figures by their file's name."""
    return {
        "time": _time_plot(runs),
        "commit": _commit_plot(runs),
        "lease": _lease_plot(runs),
    }


def of(runs: Sequence[Run], parameter: str, seconds: float | None = None) -> list[Run]:
    """Runs of one sweep, and of one mean life of GPUs if it is given."""
    return [
        run
        for run in runs
        if run.case.parameter == parameter and seconds in (None, run.case.scenario.preemption_seconds)
    ]


def manifest_bytes(num_parts: int, rows_per_part: int) -> int:
    """Size of the manifest of one shard, as it is written."""
    uri = "s3://bucket/work/generate/0123456789abcdef"
    name = f"{uri}/part-{{:05d}}-{rows_per_part}-{'0' * 64}.parquet"
    listed = tuple(
        StoredObject(uri=name.format(number), bytes=1_200_000, sha256="0" * 64, rows=rows_per_part)
        for number in range(num_parts)
    )
    manifest = Manifest(
        stage="generate",
        kind="completions",
        name="teacher",
        uri=uri,
        objects=listed,
        inputs={"prompts": "0" * 16, "model": "0" * 16},
        config_hash="0" * 16,
        code_version="0.1.0+00000000",
    )
    return len(manifest.to_json())


def _line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _ruler(num_numbers: int) -> str:
    """Below the head of a table: a name, and numbers."""
    return _line(":--", *["--:"] * num_numbers)


def _lasts(run: Run) -> str:
    return NAMES[run.case.scenario.preemption_seconds]


def _sweep_table(runs: Sequence[Run], parameter: Parameter) -> list[str]:
    asked = ("writes/s", "reads/s", "out of retries", "")
    lost = ("finished rows lost", "all tokens wasted", "waits for leases", "starts", "idle, away")
    lines = [_line(UNITS[parameter], "a GPU lasts", "throughput", *lost, *asked), _ruler(11)]
    for run in of(runs, parameter):
        made = run.measured
        lines.append(
            _line(
                f"{run.case.value:,}",
                _lasts(run),
                f"{made.throughput:.0%}",
                f"{made.lost_rows:.2%}",
                f"{made.wasted:.2%}",
                f"{made.lease:.2%}",
                f"{made.start:.0%}",
                f"{made.idle + made.away:.0%}",
                f"{made.writes:,.0f}",
                f"{made.reads:,.0f}",
                f"{made.num_exhausted:,}",
                "" if made.passes else "fails",
            )
        )
    return lines


def _world_table(runs: Sequence[Run]) -> list[str]:
    lines = [_line("world", "ideal, h", "needed, h", "throughput", "starts", "idle, away"), _ruler(5)]
    for run in of(runs, "world"):
        made, ideal = run.measured, run.case.scenario.ideal_seconds / 3600
        lines.append(
            _line(
                run.case.value,
                f"{ideal:.1f}",
                f"{ideal / made.throughput:.1f}",
                f"{made.throughput:.0%}",
                f"{made.start:.0%}",
                f"{made.idle + made.away:.0%}",
            )
        )
    return lines


def _chosen_table(runs: Sequence[Run]) -> list[str]:
    lines = [_line("parameter", "passes", "default"), "|:--|:--|--:|"]
    for parameter in SETTABLE:
        failed = {run.case.value for run in of(runs, parameter) if not run.measured.passes}
        good = ", ".join(f"{value:,}" for value in VALUES[parameter] if value not in failed)
        present = getattr(PRESENT, parameter)
        should = recommended(runs, parameter, present)
        told = f"{present:,.0f}" if should == present else f"{present:,.0f}, should be {should}"
        lines.append(_line(UNITS[parameter], good or "none", told))
    return lines


def _manifests(runs: Sequence[Run]) -> list[str]:
    lines = [_line("`rows_per_part`", "parts", "a shard's manifest, KiB", "all manifests, MiB"), _ruler(3)]
    for run in of(runs, "rows_per_part", PREEMPTION_SECONDS[0]):
        scenario = run.case.scenario
        rows_per_part, num_shards = scenario.protocol.rows_per_part, scenario.protocol.num_shards
        num_parts = -(-scenario.num_rows // num_shards // rows_per_part)
        size = manifest_bytes(num_parts, rows_per_part)
        total = f"{size * num_shards / 2**20:,.0f}"
        lines.append(_line(f"{rows_per_part:,}", f"{num_parts * num_shards:,}", f"{size / 1024:,.1f}", total))
    return lines


def _panels(
    runs: Sequence[Run],
    parameter: Parameter,
    drawn: Sequence[tuple[str, Callable[[Measured], float], float]],
    label: str,
) -> Figure:
    """A row of panels: a line for each life of GPUs, and what the criterion allows."""
    figure = Figure(figsize=(4.2 * len(drawn), 3.2), layout="constrained")
    for number, (title, value, allowed) in enumerate(drawn, start=1):
        axes = figure.add_subplot(1, len(drawn), number)
        for seconds in PREEMPTION_SECONDS:
            if found := of(runs, parameter, seconds):
                places = [float(run.case.value) for run in found]
                heights = [100 * value(run.measured) for run in found]
                axes.plot(places, heights, "o-", markersize=4, label=f"a GPU lasts {NAMES[seconds]}")
        axes.axhline(100 * allowed, color="black", linestyle="--", linewidth=1, label="allowed")
        _dress(axes, title, label, VALUES[parameter])
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure


def _dress(axes: Axes, title: str, label: str, values: Sequence[int]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(values, [f"{value:,}" for value in values])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(label)
    axes.grid(visible=True, linewidth=0.4)


def _commit_plot(runs: Sequence[Run]) -> Figure:
    drawn = [
        ("finished rows lost, % of tokens", _lost, MAX_LOST_ROWS),
        ("requests at the peak, % of one partition", _load, MAX_LOAD),
    ]
    return _panels(runs, "commit_seconds", drawn, "generate.commit_seconds")


def _lease_plot(runs: Sequence[Run]) -> Figure:
    drawn = [
        ("waiting for leases, % of GPU time", _lease, MAX_LEASE),
        ("requests at the peak, % of one partition", _load, MAX_LOAD),
    ]
    return _panels(runs, "lease_seconds", drawn, "seconds of a lease")


def _lost(item: Measured) -> float:
    return item.lost_rows


def _lease(item: Measured) -> float:
    return item.lease


def _load(item: Measured) -> float:
    return item.load


def _time_plot(runs: Sequence[Run]) -> Figure:
    """What GPU time goes into, by number of shards."""
    figure = Figure(figsize=(10.5, 3.2), layout="constrained")
    shown: tuple[tuple[str, str], ...] = (
        ("sampling", "sampling"),
        ("start", "starting"),
        ("lease", "lease"),
        ("away", "taken away"),
        ("idle", "idle"),
    )
    for number, seconds in enumerate(PREEMPTION_SECONDS, start=1):
        found = of(runs, "num_shards", seconds)
        axes = figure.add_subplot(1, len(PREEMPTION_SECONDS), number)
        places, bottom = [f"{run.case.value:,}" for run in found], [0.0] * len(found)
        for name, label in shown:
            heights = [100 * float(getattr(run.measured, name)) for run in found]
            axes.bar(places, heights, bottom=bottom, label=label)
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
        axes.set_title(f"a GPU lasts {NAMES[seconds]}", fontsize=10, loc="left")
        axes.set_xlabel("num_shards")
        axes.tick_params(axis="x", labelsize=7)
    figure.axes[0].set_ylabel("% of GPU time")
    figure.axes[-1].legend(fontsize=8, loc="lower right")
    return figure
