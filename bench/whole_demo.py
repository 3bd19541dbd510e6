"""The whole demo beside the time in which its engines and trainings work.

    python -m bench.whole_demo --json FILE [--rounds 5] [--out out/demos]

A round is `limbeck demo` in a folder of its own, from when its models are made. Theirs is the time in which
at least one engine or training is at work: two shards, or two policies, work side by side. `--out` keeps the
demos there, as `0`, `1` and so on.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.cut_run import lines_of
from bench.followed import covered, follow
from bench.measured import Comparison, Pair, save

ENGINES = ("generate", "judge", "evaluate", "sft", "reward", "ppo")
"""First words of the tasks with an engine or a training."""
RUNNING = "limbeck: running"
"""How the line begins that comes when the inputs are in the store."""


def round_of(out: Path) -> Pair:
    """Seconds of one demo, and of the work in it."""
    began = 0.0

    def lines() -> Iterator[str]:
        nonlocal began
        for line in lines_of("demo", "--out", str(out)):
            if line.startswith(RUNNING):
                began = time.monotonic()
            yield line

    tasks = follow(lines())
    spans = [
        (task.worked[0], task.worked[-1]) for task in tasks if task.name.split()[0] in ENGINES and task.worked
    ]
    return Pair(ours=time.monotonic() - began, theirs=covered(spans))


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.out or Path(scratch)
        pairs = [round_of(folder / str(number)) for number in range(asked.rounds)]
    comparison = Comparison(
        what="the whole demo",
        note="from the first task to the end of the command",
        against="the time in which at least one of its engines and trainings works",
        model="demo",
        unit="s",
        goal=1.2,
        goal_is="at most",
        pairs=tuple(pairs),
    )
    save(asked.json, comparisons=(comparison,))


if __name__ == "__main__":
    main()
