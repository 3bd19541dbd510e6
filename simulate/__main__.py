"""`make simulate`: the sweep, and the plots and tables of docs/simulation.md that are made of it."""

import argparse
from pathlib import Path

from pydantic import TypeAdapter

from simulate import page
from simulate.scenario import Scenario
from simulate.sweep import Run, sweep

FIGURES = TypeAdapter(list[Run])


def main() -> None:
    """Simulate, or draw again what was simulated."""
    parser = argparse.ArgumentParser(prog="python -m simulate", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", type=int, default=Scenario.num_rows)
    parser.add_argument("--gpus", type=int, default=Scenario.num_gpus)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--figures", type=Path, default=Path("build/simulation.json"))
    parser.add_argument("--again", action="store_true", help="simulate nothing: the figures are there")
    parser.add_argument("--page", type=Path, default=Path("docs/simulation.md"))
    asked = parser.parse_args()
    if not asked.again:
        base = Scenario(seed=asked.seed, num_rows=asked.rows, num_gpus=asked.gpus)
        asked.figures.parent.mkdir(parents=True, exist_ok=True)
        asked.figures.write_bytes(FIGURES.dump_json(sweep(base, asked.processes), indent=1))
    page.write(FIGURES.validate_json(asked.figures.read_bytes()), asked.page)


if __name__ == "__main__":
    main()
