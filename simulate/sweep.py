"""Runs beside each other: one parameter of the protocol at a time, against how often GPUs are taken away.

The criterion, fixed beforehand. A value passes if in all of its runs
- at most 1% of the tokens were of finished rows that a kill lost (`MAX_LOST_ROWS`);
- the stage's own prefix was asked for at most a tenth of what one partition of S3 answers, at its peak
  (`MAX_LOAD`): partitions split only gradually, and other runs share them;
- at most 1% of GPU time went into waiting for leases (`MAX_LEASE`).
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Literal

from simulate.run import simulate
from simulate.scenario import Scenario

MAX_LOST_ROWS = 0.01
MAX_LOAD = 0.1
MAX_LEASE = 0.01
WRITES_A_PARTITION = 3500
"""PUT, COPY, POST and DELETE a second; published by AWS."""
READS_A_PARTITION = 5500
"""GET and HEAD a second; likewise."""
HOUR = 3600.0
PREEMPTION_SECONDS = (HOUR / 2, 2 * HOUR, 12 * HOUR, 72 * HOUR)

Parameter = Literal["num_shards", "commit_seconds", "lease_seconds", "rows_per_part"]
VALUES: dict[Parameter, tuple[int, ...]] = {
    "num_shards": (1000, 2000, 5000),
    "commit_seconds": (15, 30, 60, 120),
    "lease_seconds": (30, 60, 120, 300),
    "rows_per_part": (500, 2000, 20_000),
}


@dataclass(frozen=True)
class Case:
    """One run of a sweep."""

    parameter: Parameter | Literal["world"]
    value: int | str
    """Of the parameter, or the world's name."""
    scenario: Scenario


@dataclass(frozen=True)
class Measured:
    """What is kept of one run."""

    throughput: float
    lost_rows: float
    """Share of all tokens; `wasted` likewise."""
    wasted: float
    lease: float
    """Share of GPU time; the four that follow likewise."""
    start: float
    """The model's download included."""
    sampling: float
    away: float
    idle: float
    writes: float
    """Requests a second at the stage's own prefix, at their peak; `reads` likewise."""
    reads: float
    prompt_reads: float
    num_writes: int
    num_reads: int
    num_preempted: int
    num_exhausted: int

    @property
    def load(self) -> float:
        """The larger share of one partition's limits."""
        return max(self.writes / WRITES_A_PARTITION, self.reads / READS_A_PARTITION)

    @property
    def passes(self) -> bool:
        """The criterion."""
        return self.lost_rows <= MAX_LOST_ROWS and self.load <= MAX_LOAD and self.lease <= MAX_LEASE


@dataclass(frozen=True)
class Run:
    """A case and what came of it."""

    case: Case
    measured: Measured


def cases(base: Scenario) -> Iterator[Case]:
    """All runs.

    Lease and parts are tried at both ends: losses are largest where GPUs last least, requests
    where they last. The lease is tried at its worst: with spare GPUs, so that a retry never waits for one.
    """
    ends = (PREEMPTION_SECONDS[0], PREEMPTION_SECONDS[-1])
    for parameter, values in VALUES.items():
        for value in values:
            protocol = replace(base.protocol, **{parameter: value})
            for seconds in PREEMPTION_SECONDS if parameter in ("num_shards", "commit_seconds") else ends:
                scenario = replace(base, protocol=protocol, preemption_seconds=seconds)
                if parameter == "lease_seconds":
                    scenario = _with_spare_gpus(scenario)
                yield Case(parameter, value, scenario)
    for name, scenario in worlds(base).items():
        yield Case("world", name, scenario)


def worlds(base: Scenario) -> dict[str, Scenario]:
    """Other figures of a scenario, by what they stand for."""
    quick = replace(base, engine_seconds=30.0)
    return {
        "as described": base,
        "an H100": replace(base, tokens_per_second=12_500.0),
        "an engine that starts in 30 s": quick,
        "weights on the node already": replace(base, model_bytes=1),
        "prompts that cost nothing to read": replace(base, prompt_seconds=0.0),
        "all three of these": replace(quick, model_bytes=1, prompt_seconds=0.0),
    }


def _with_spare_gpus(scenario: Scenario) -> Scenario:
    """One shard a GPU, and a GPU that is taken away has its successor ready."""
    protocol = replace(scenario.protocol, num_shards=scenario.num_gpus)
    return replace(scenario, protocol=protocol, replace_seconds=0.0)


def measure(scenario: Scenario) -> Measured:
    """Run it once."""
    made = simulate(scenario)
    total = made.traffic.total("results")
    return Measured(
        throughput=made.throughput,
        lost_rows=made.lost_rows_share,
        wasted=made.wasted_share,
        lease=made.share("lease"),
        start=made.share("start") + made.share("download"),
        sampling=made.share("sampling"),
        away=made.share("away"),
        idle=made.share("idle"),
        writes=made.traffic.writes_per_second("results"),
        reads=made.traffic.reads_per_second("results"),
        prompt_reads=made.traffic.reads_per_second("prompts"),
        num_writes=total.writes,
        num_reads=total.reads,
        num_preempted=made.num_preempted,
        num_exhausted=made.num_exhausted,
    )


def sweep(base: Scenario, processes: int = 2) -> list[Run]:
    """All runs, in the order of `cases`; what several sweeps have in common runs once."""
    wanted = list(cases(base))
    scenarios = list(dict.fromkeys(case.scenario for case in wanted))
    # Spawned: the same everywhere, whatever the parent has imported.
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        measured = dict(zip(scenarios, pool.map(measure, scenarios), strict=True))
    return [Run(case, measured[case.scenario]) for case in wanted]


def recommended(runs: Iterable[Run], parameter: Parameter, present: int) -> int | None:
    """The value that should be the default: the present one if it passes everywhere, or the nearest.

    Args:
        runs: Of all parameters.
        parameter: Which one.
        present: Its default.

    Returns:
        None if no value passes.
    """
    failed = {run.case.value for run in runs if run.case.parameter == parameter and not run.measured.passes}
    good = [value for value in VALUES[parameter] if value not in failed]
    return min(good, key=lambda value: abs(value - present), default=None)
