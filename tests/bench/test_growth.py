"""The measurement of docs/scale.md still runs, and the limit that it sets is a real one."""

import subprocess
import sys
from pathlib import Path

from bench.measured import Measured

ROOT = Path(__file__).parents[2]


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "bench.growth", "--rounds", "1", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_stage_is_measured(tmp_path: Path) -> None:
    made = bench("--rows", "600", "--json", str(tmp_path / "growth.json"))
    assert made.returncode == 0, made.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in made.stdout.splitlines()]
    assert [row[:2] for row in rows[2:]] == [
        ["prepare", "600"],
        ["label, teacher", "600"],
        ["label, student", "600"],
        ["report", "2,040"],
        ["evaluate", "600"],
        ["merge", "600"],
    ]
    assert all(50 < float(row[2]) < 1000 for row in rows[2:])
    measured = Measured.model_validate_json((tmp_path / "growth.json").read_text())
    assert [growth.what for growth in measured.growths[:2]] == ["prepare", "prepare, memory"]
    assert len(measured.growths) == 2 * 6


def test_a_stage_that_needs_more_memory_than_it_may_have_fails() -> None:
    made = bench("--rows", "600", "--stages", "prepare", "--memory-mib", "30")
    assert made.returncode != 0
    assert "prepare: exit status" in made.stderr
