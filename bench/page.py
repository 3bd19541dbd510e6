"""One page of all that `make bench` measured: `python -m bench.page docs/speed/measured PAGE.md`."""

import statistics
import sys
from pathlib import Path

from bench.measured import Comparison, Growth, Limit, Measured

HEAD = """# What was measured

Made by `make bench`, by hand never. A ratio is the median over the rounds of one run of ours / theirs, with
the smallest and the largest beside it; both sides took turns in that run. What the rows mean, what was
profiled and what was changed: [speed](../speed.md).
"""


def page(measured: list[Measured]) -> str:
    """The page in Markdown: ratios, limits, growth, and where each came from."""
    parts = [HEAD]
    comparisons = [row for one in measured for row in one.comparisons]
    limits = [row for one in measured for row in one.limits]
    growths = [row for one in measured for row in one.growths]
    if comparisons:
        head = "| what | against | model | ours | theirs | ours / theirs | goal | met |"
        parts.append("\n".join([head, "|---|---|---|--:|--:|--:|--:|---|", *map(_comparison, comparisons)]))
    if limits:
        parts.append(
            "\n".join(["| what | median | limit | met |", "|---|--:|--:|---|", *map(_limit, limits)])
        )
    parts += map(_growth, growths)
    notes = dict.fromkeys(
        f"- {row.what}: {row.note}" for row in (*comparisons, *limits, *growths) if row.note
    )
    if notes:
        parts.append("\n".join(notes))
    parts.append(
        "\n".join(
            ["Where from:", "", *(f"- `{one.command}`, {one.commit}: {one.machine}" for one in measured)]
        )
    )
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _comparison(row: Comparison) -> str:
    ours, theirs = (
        statistics.median(side) for side in zip(*((p.ours, p.theirs) for p in row.pairs), strict=True)
    )
    spread = f"{row.ratio:.2f} ({min(row.ratios):.2f} to {max(row.ratios):.2f}, {len(row.pairs)} rounds)"
    shown = f"{_number(ours)} {row.unit} | {_number(theirs)} {row.unit} | {spread}"
    met = "yes" if row.met else "**no**"
    return f"| {row.what} | {row.against} | {row.model} | {shown} | {row.goal_is} {row.goal:g} | {met} |"


def _limit(row: Limit) -> str:
    median = statistics.median(row.values)
    spread = f"{_number(median)} {row.unit} ({_number(min(row.values))} to {_number(max(row.values))})"
    return (
        f"| {row.what} | {spread} | {row.limit:g} {row.unit} | {'yes' if median <= row.limit else '**no**'} |"
    )


def _growth(row: Growth) -> str:
    head = (
        f"| {row.what} ({row.model}): {row.size} | "
        + " | ".join(f"{size:,g}" for size, _ in row.points)
        + " |"
    )
    values = f"| {row.unit} | " + " | ".join(_number(value) for _, value in row.points) + " |"
    return "\n".join([head, "|---" + "|--:" * len(row.points) + "|", values])


def _number(value: float) -> str:
    """Three figures, without a power of ten."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main(folder: Path, out: Path) -> None:
    """Write the page of all files of a folder."""
    files = sorted(folder.glob("*.json"))
    measured = [Measured.model_validate_json(path.read_text(encoding="utf-8")) for path in files]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(measured), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
