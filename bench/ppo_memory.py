"""PPO's memory beside TRL's, what both learn in how many rounds, and how the cost of ours grows.

python -m bench.ppo_memory --json FILE [--parts memory curve growth]

The sides are those of `bench.ppo`.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from bench.measured import Comparison, Growth, in_turns, save
from bench.ppo import SECONDS, SIDES, Bench, add_places, words
from bench.ppo_settings import SETTINGS, Setting

CURVE = (1, 5, 10, 15, 20, 25, 30, 35, 40)
GROWING = replace(SETTINGS["smollm2"], layers=2, batch=8, prompt_tokens=16)
PARTS = ("memory", "curve", "growth")


def memory(bench: Bench, lora_rank: int, rounds: int) -> Comparison:
    """Peak memory of a PPO process over that of the same process with models of no size."""
    setting, nothing = (replace(SETTINGS[name], lora_rank=lora_rank) for name in ("memory", "nothing"))

    def peak(name: str, shape: Setting) -> float:
        with bench.side(name, "ppo", shape) as worker:
            return worker.turn()["peak"]

    fixed = {name: peak(name, nothing) for name in SIDES}
    return Comparison(
        what="ppo, peak memory of a round over that of the process"
        + (", LoRA" if lora_rank else ", all weights"),
        against="TRL 1.12.0 PPOTrainer",
        model="smollm2",
        unit="MiB",
        goal=0.6,
        goal_is="at most",
        pairs=in_turns(
            lambda: peak("ours", setting) - fixed["ours"],
            lambda: peak("TRL", setting) - fixed["TRL"],
            rounds,
        ),
        note="the first round of a process of its own each time; vLLM's weights and cache count; the "
        "process itself (imports, engine), which is taken off, is that of a run with models of no size: "
        f"{fixed['ours']:.0f} MiB ours, {fixed['TRL']:.0f} MiB TRL; {words(setting)}; both read "
        f"{setting.forward_rows} rows at once"
        + (f"; adapters of rank {lora_rank} for policy and critic of both" if lora_rank else ""),
    )


def curve(bench: Bench) -> tuple[Growth, ...]:
    """Mean reward of each round of both, on a task that both can learn: write a word."""
    setting = SETTINGS["curve"]
    grown = []
    for name in SIDES:
        with bench.side(name, "ppo", setting) as worker:
            rewards = [worker.turn()["reward"] for _ in range(max(CURVE))]
        grown.append(
            Growth(
                what=f"{name}: share of completions with a wanted word",
                model="demo",
                size="round of PPO",
                unit="mean reward",
                points=tuple((float(at), rewards[at - 1]) for at in CURVE),
                note=f"both start from one random policy, each samples for itself; {words(setting)}",
            )
        )
    return tuple(grown)


def growth(bench: Bench) -> tuple[Growth, ...]:
    """Samples/s and peak memory of our PPO along the length of completions, and along the batch."""
    along = {
        "tokens a completion": [replace(GROWING, completion_tokens=16 * n) for n in (1, 2, 4, 8)],
        "rollouts a round": [replace(GROWING, batch=8 * n, minibatches=2 * n) for n in (1, 2, 4)],
    }
    grown = []
    for size, settings in along.items():
        speeds, peaks = [], []
        for setting in settings:
            with bench.side("ours", "ppo", setting) as worker:
                worker.turn()
                figures = worker.turn()
            at = float(setting.batch if size == "rollouts a round" else setting.completion_tokens)
            speeds.append((at, setting.batch / figures[SECONDS]))
            peaks.append((at, figures["peak"]))
        note = f"one round each, after one to warm up; {words(GROWING)} where nothing grows"
        grown += [
            Growth(what=what, model="smollm2", size=size, unit=unit, points=tuple(points), note=note)
            for what, unit, points in (
                ("ppo, speed", "samples/s", speeds),
                ("ppo, peak memory of the whole process", "MiB", peaks),
            )
        ]
    return tuple(grown)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5, help="of memory")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    add_places(parser)
    asked = parser.parse_args()
    bench = Bench(asked.trl, asked.out)
    comparisons = [memory(bench, lora_rank, asked.rounds) for lora_rank in (0, 16) if "memory" in asked.parts]
    growths = [
        *(curve(bench) if "curve" in asked.parts else ()),
        *(growth(bench) if "growth" in asked.parts else ()),
    ]
    save(asked.json, comparisons=tuple(comparisons), growths=tuple(growths))


if __name__ == "__main__":
    main()
