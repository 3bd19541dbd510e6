"""The criterion, the defaults that come out of it, and the page that is made of a sweep."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from simulate.page import manifest_bytes
from simulate.scenario import Protocol, Scenario
from simulate.sweep import Case, Measured, Run, cases, recommended

ROOT = Path(__file__).parents[2]
GOOD = Measured(
    throughput=0.8,
    lost_rows=0.01,
    wasted=0.02,
    lease=0.01,
    start=0.1,
    sampling=0.7,
    away=0.1,
    idle=0.1,
    writes=350,
    reads=550,
    prompt_reads=0,
    num_writes=1,
    num_reads=1,
    num_preempted=1,
    num_exhausted=0,
)


@pytest.mark.parametrize(
    ("made", "passes"),
    [
        (GOOD, True),
        (replace(GOOD, lost_rows=0.011), False),
        (replace(GOOD, writes=351), False),
        (replace(GOOD, reads=551), False),
        (replace(GOOD, lease=0.011), False),
    ],
    ids=["at all limits", "rows", "writes", "reads", "lease"],
)
def test_a_run_passes_up_to_each_limit_and_not_beyond(made: Measured, passes: bool) -> None:
    assert made.passes == passes


@pytest.mark.parametrize(
    ("failed", "present", "wanted"),
    [((), 60, 60), ((60,), 60, 30), ((30, 60), 60, 15), ((120,), 60, 60), ((15, 30, 60, 120), 60, None)],
    ids=str,
)
def test_a_default_stays_if_it_passes_and_else_goes_to_the_nearest_value_that_does(
    failed: tuple[int, ...], present: int, wanted: int | None
) -> None:
    runs = [
        Run(
            Case("commit_seconds", value, Scenario()),
            replace(GOOD, lost_rows=0.5 * (value in failed and number)),
        )
        for value in (15, 30, 60, 120)
        for number in range(2)
    ]
    assert recommended(runs, "commit_seconds", present) == wanted


def test_each_sweep_changes_one_parameter_and_has_the_default_in_it() -> None:
    base = Scenario()
    for case in cases(base):
        if case.parameter in ("commit_seconds", "rows_per_part"):
            protocol = replace(
                case.scenario.protocol, **{case.parameter: getattr(Protocol(), case.parameter)}
            )
            assert protocol == base.protocol
    values = {(case.parameter, case.value) for case in cases(base)}
    present = Protocol()
    assert ("commit_seconds", present.commit_seconds) in values
    assert ("lease_seconds", present.lease_seconds) in values
    assert ("rows_per_part", present.rows_per_part) in values


def test_a_manifest_grows_by_a_quarter_kilobyte_a_part() -> None:
    assert manifest_bytes(101, 2000) - manifest_bytes(1, 2000) == pytest.approx(100 * 250, rel=0.2)


def test_a_small_sweep_fills_the_page_and_draws_its_plots(tmp_path: Path) -> None:
    page = tmp_path / "simulation.md"
    page.write_text((ROOT / "docs" / "simulation.md").read_text())
    command = [sys.executable, "-m", "simulate", "--rows", "200000", "--gpus", "5", "--page", str(page)]
    figures = ["--figures", str(tmp_path / "figures.json")]
    subprocess.run([*command, *figures], cwd=ROOT, check=True)
    first = page.read_text()
    rows = re.findall(r"^\|.*\|$", first, re.MULTILINE)
    assert sum("| 30 min |" in row for row in rows) >= 14
    assert sorted(path.name for path in (tmp_path / "simulation").iterdir()) == [
        "commit.png",
        "lease.png",
        "time.png",
    ]
    subprocess.run([*command, *figures, "--again"], cwd=ROOT, check=True)
    assert page.read_text() == first


def test_the_docs_page_tells_the_present_defaults() -> None:
    """A default that is changed asks for `make simulate`."""
    text = (ROOT / "docs" / "simulation.md").read_text()
    chosen = text.partition("<!-- chosen -->")[2].partition("<!-- end -->")[0]
    present = Protocol()
    for name, value in (
        ("`commit_seconds`", present.commit_seconds),
        ("lease, seconds", present.lease_seconds),
        ("`rows_per_part`", present.rows_per_part),
    ):
        (line,) = [line for line in chosen.splitlines() if line.startswith(f"| {name} |")]
        assert line.endswith(f"| {value:,.0f} |")
    assert "should be" not in chosen
