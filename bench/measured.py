"""What a benchmark of `make bench` gives: measurements in pairs, or along a growing size; kept as JSON.

A benchmark is a module with `main`, run as `python -m bench.NAME --json docs/speed/measured/NAME.json`. It
measures both sides in one run, in turns (`in_turns`), so that they meet the same load of the machine;
`bench.page` makes docs/speed/measured.md of all files.
"""

import os
import platform
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Shown(_Record):
    what: str
    """What was measured of Limbeck, and its unit: `generate, tokens/s of the whole stage`."""
    note: str = ""
    """What a reader must know: the settings, what is counted."""


class Pair(_Record):
    """One round: the same work by Limbeck and by what it is compared with."""

    ours: float
    theirs: float


class Comparison(_Shown):
    """One row of the table: pairs from one run, and what is asked of their ratio `ours / theirs`."""

    against: str
    """What it is compared with: `raw vLLM on the same prompts`."""
    model: str
    """The models' size: `demo`, `smollm2`."""
    unit: str
    """Unit of both sides: `tokens/s`, `s`, `MiB`."""
    goal: float
    """The ratio to reach."""
    goal_is: Literal["at least", "at most"]
    """Which side of the goal is good."""
    pairs: tuple[Pair, ...]
    """At least five for a claim."""

    @property
    def ratios(self) -> list[float]:
        """`ours / theirs` of every pair."""
        return [pair.ours / pair.theirs for pair in self.pairs]

    @property
    def ratio(self) -> float:
        """Their median."""
        return statistics.median(self.ratios)

    @property
    def met(self) -> bool:
        """Whether the median reaches the goal."""
        return self.ratio >= self.goal if self.goal_is == "at least" else self.ratio <= self.goal


class Limit(_Shown):
    """A time that has a limit of its own, not a ratio."""

    unit: str
    """`s`."""
    limit: float
    """The median may be at most this."""
    values: tuple[float, ...]
    """One for each round."""


class Growth(_Shown):
    """How a measurement changes while one size grows and all else stays."""

    model: str
    """`demo`, `smollm2`, or `none`."""
    size: str
    """What grows: `rows`, `tokens a sequence`."""
    unit: str
    """Unit of the values."""
    points: tuple[tuple[float, float], ...]
    """Size and value, smallest first."""


class Measured(_Record):
    """What one benchmark wrote."""

    command: str
    """What was typed."""
    commit: str
    """The code that was measured; `+` at the end where files had changes."""
    machine: str
    """Processor, cores, and the load when it ended."""
    comparisons: tuple[Comparison, ...] = ()
    limits: tuple[Limit, ...] = ()
    growths: tuple[Growth, ...] = ()


def in_turns(ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> tuple[Pair, ...]:
    """Measure both sides in each round, who comes first by turns; one round before them warms up."""
    pairs = []
    for number in range(rounds + 1):
        if number % 2:
            first = theirs()
            pairs.append(Pair(ours=ours(), theirs=first))
        else:
            first = ours()
            pairs.append(Pair(ours=first, theirs=theirs()))
    return tuple(pairs[1:])


def save(
    path: Path,
    *,
    comparisons: tuple[Comparison, ...] = (),
    limits: tuple[Limit, ...] = (),
    growths: tuple[Growth, ...] = (),
) -> None:
    """Write what was measured, with the command, the commit and the machine."""
    git = ["git", "-C", str(Path(__file__).parent)]
    commit = subprocess.run(
        [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    )
    # Files such as this one are written below docs.
    status = [*git, "status", "--porcelain", "--", ":/", ":!/docs"]
    changed = subprocess.run(status, capture_output=True, text=True, check=True)
    spec = sys.modules["__main__"].__spec__
    measured = Measured(
        command=shlex.join(["python", "-m", spec.name if spec else "bench", *sys.argv[1:]]),
        commit=commit.stdout.strip() + ("+" if changed.stdout.strip() else ""),
        machine=f"{_processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        comparisons=comparisons,
        limits=limits,
        growths=growths,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(measured.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _processor() -> str:
    """The processor's name, where the machine tells it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
