"""The measurement of docs/scale.md still runs, and the limit that it sets is a real one."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "bench.cpu_stages", "--rows", "3000", "--heldout", "300", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_stage_is_measured() -> None:
    made = bench()
    assert made.returncode == 0, made.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in made.stdout.splitlines()]
    assert [row[:2] for row in rows[2:]] == [
        ["prepare", "3,000"],
        ["label, teacher", "3,000"],
        ["label, student", "3,000"],
        ["report", "21,000"],
    ]
    assert all(50 < float(row[2]) < 1000 for row in rows[2:])


def test_a_stage_that_needs_more_memory_than_it_may_have_fails() -> None:
    made = bench("--stages", "prepare", "--memory-mib", "30")
    assert made.returncode != 0
    assert "prepare: exit status" in made.stderr
