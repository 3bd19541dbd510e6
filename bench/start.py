"""What people wait for before anything happens: the command line, and runs whose work is all done.

`--demo OUT` also measures a finished `limbeck demo --out OUT`.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import cut_run
from bench.measured import Limit, save

CLI = [sys.executable, "-m", "limbeck.cli"]


def seconds(*arguments: str) -> float:
    """How long one command takes."""
    started = time.monotonic()
    subprocess.run([*CLI, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def limit(what: str, most: float, rounds: int, *arguments: str, note: str = "") -> Limit:
    """A command that may take so long; once more before, to warm up."""
    values = [seconds(*arguments) for _ in range(rounds + 1)][1:]
    return Limit(what=what, note=note, unit="s", limit=most, values=tuple(values))


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--demo", type=Path, help="The folder of a finished demo.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run_file = cut_run.write(folder)
        for _ in cut_run.lines(run_file, folder / "out"):
            pass  # the run that is then complete
        compiled = str(folder / "pipeline.yaml")
        limits = [
            limit("limbeck --help", 0.5, asked.rounds, "--help"),
            limit("limbeck compile distill", 5, asked.rounds, "compile", "distill", "--output", compiled),
            limit(
                "resume of a complete run",
                3,
                asked.rounds,
                *("run", str(run_file), "--out", str(folder / "out")),
                note="distill with two shards and three rewards as in the demo, on tiny models with random "
                "weights; the embedded store is started and stopped too",
            ),
        ]
    if asked.demo:
        limits.append(limit("resume of a complete demo", 3, asked.rounds, "demo", "--out", str(asked.demo)))
    save(asked.json, limits=tuple(limits))


if __name__ == "__main__":
    main()
