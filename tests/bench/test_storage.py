"""The measurement of docs/storage.md still runs, and what comes back is what went."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_python_client_is_measured_both_ways(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "bench.storage",
        "--rounds",
        "1",
        "--large-mib",
        "72",
        "--small-files",
        "20",
    ]
    made = subprocess.run(
        [*command, "--json", str(tmp_path / "out.json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    measured = json.loads((tmp_path / "out.json").read_text())
    assert len(measured) == 3 * 2 * 2
    assert {item["client"] for item in measured} >= {"limbeck", "boto3, one after another"}
    assert all(0 < item["seconds"] < 60 and 30 < item["peak_mib"] < 512 for item in measured)
    assert made.stdout.count("\n| ") == len(measured)
