"""`ppo`, `rloo` and `grpo` side by side: the demo, cut, three times over in one store.

    python -m bench.rl_algorithms [--seed 1] [--out build/rl-algorithms]

The first run makes everything; the others find all but their own `ppo`, `evaluate` and `report`. All three
answer the same prompts with as many rollouts. The table at the end: agreement on the validation prompts at
the start and at the kept checkpoint, held-out accuracy of that checkpoint, and the stage's seconds.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import yaml

from limbeck import local, seaweed
from tests.chaos import cut_demo

ALGORITHMS = ("ppo", "rloo", "grpo")
SAME = {
    "num_updates": 24,
    "batch_size": 256,
    "samples_per_prompt": 4,
    "evaluate_every": 4,
    "validation_samples": 8,
}
"""Settings of `ppo` that all three share, besides the demo's."""


def run(algorithm: str, base: Path, out: Path) -> str:
    """Run the pipeline with an algorithm; gives its line of the table."""
    values = yaml.safe_load(base.read_text(encoding="utf-8"))
    values["config"]["ppo"] |= {"algorithm": algorithm, **SAME}
    path, folder = out / f"{algorithm}.yaml", out / algorithm
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    command = [sys.executable, "-m", "limbeck.cli", "run", str(path), "--out", str(folder)]
    subprocess.run(command, env=local.environment(), check=True)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    (learnt,) = report["ppo"].values()
    (stage,) = [row for row in report["stages"] if row["stage"] == "ppo"]
    accuracy = {(row["name"], row["decoding"]): row["accuracy"] for row in report["rows"]}
    return (
        f"| {algorithm} | {learnt['steps'][0]['validation_agreement']:.3f} "
        f"| {learnt['validation_agreement']:.3f} | {accuracy['sft_selected', 'sampled']:.3f} "
        f"| {accuracy['policy', 'sampled']:.3f} | {stage['wall_seconds']:.0f} |"
    )


def main() -> None:
    """Run all three and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/rl-algorithms"))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    base = asked.out / "run.yaml"
    with seaweed.serve(asked.out / "store") as store:
        cut_demo.write_run_file(asked.seed, store, base)
        lines = [run(algorithm, base, asked.out) for algorithm in ALGORITHMS]
    print("| algorithm | val. at start | val. kept | held out, SFT | held out, kept | seconds |")
    print("|---|--:|--:|--:|--:|--:|", *lines, sep="\n")


if __name__ == "__main__":
    main()
