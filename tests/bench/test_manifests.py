"""The measurement of docs/resume.md still runs."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_one_manifest_and_a_tree_of_them_are_measured() -> None:
    command = [sys.executable, "-m", "bench.manifests", "--parts=30", "--rows=3000", "--leaves=12"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    lines = made.stdout.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if ":--" not in line]
    told = [row[0] for row in rows if len(row) == 3]
    assert told == [
        "30 parts, 3,000 rows",
        "plan a resume: which parts are finished",
        "write the manifest",
        "verify it: read it, list all objects",
        "all of these; the manifest has 0.0 MiB",
        "tree of 30 parts a leaf",
        "1 leaves, 3,000 rows",
        "10 leaves, 30,000 rows",
        "12 leaves, 36,000 rows",
        "the root: 2 KiB; all leaves: 0 MiB",
    ]
    assert all(50 < float(row[2]) < 512 for row in rows if len(row) == 3 and row[2][0].isdigit())
