"""Limbeck's PPO and RLOO beside TRL's: samples/s of whole rounds, peak memory, reward curves, growth.

    python -m bench.ppo --json build/bench/ppo.json [--model demo|smollm2|all] [--lengths even mixed gsm8k]
    python -m bench.ppo --json build/bench/ppo-gpu.json --model smollm2-135m --dtype bfloat16   on a GPU

A round samples completions, scores them, and makes all updates from them. TRL dropped PPOTrainer in 1.13, so
that side runs TRL 1.12.0 in an environment of its own (`make build/trl-comparison/.ready`); its RLOOTrainer
is that of Limbeck's environment. Each side is a long run in a process of its own, with one thread or one GPU;
they take turns.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from bench.measured import Comparison, Growth, Pair, in_turns, save
from bench.ppo_settings import SETTINGS, Setting, write_models
from bench.turns import Worker
from limbeck import local

CURVE = (1, 5, 10, 15, 20, 25, 30, 35, 40)
GROWING = replace(SETTINGS["smollm2"], layers=2, batch=8, prompt_tokens=16)
SECONDS, CLOCK = ("seconds", "clock") if local.has_gpu() else ("cpu_seconds", "CPU")
"""Without a GPU a round is one thread's work: CPU seconds hold on a machine that others use too."""
AGAINST = {"ppo": ("ppo", "ppo", 3.0), "rloo": ("rloo", "rloo", 1.2), "ppo-rloo": ("ppo", "rloo", 1.2)}
"""Our algorithm, TRL's, and the ratio to reach."""
LENGTHS = {"even": "", "mixed": ", mixed", "gsm8k": ", gsm8k"}
"""Of prompts and answers, and what a setting's name then ends with."""
PARTS = (*AGAINST, "memory", "curve", "growth")
SIDES = {"ours": "bench.ppo_ours", "TRL": "bench.ppo_trl"}


class Bench:
    """Starts sides, with their models and environments."""

    def __init__(self, trl: Path, out: Path) -> None:
        self._trl, self._out = trl, out

    @contextmanager
    def side(self, name: str, algorithm: str, setting: Setting) -> Iterator[Worker]:
        """One side's process, ready for its first turn."""
        shape = (setting.width, setting.layers, setting.vocabulary, setting.mean_tokens)
        folder = self._out / "models" / "-".join(map(str, shape))
        if not folder.exists():
            write_models(setting, folder)
        python = str(self._trl) if (name, algorithm) == ("TRL", "ppo") else sys.executable
        command = [python, "-m", SIDES[name], str(folder), json.dumps(asdict(setting)), algorithm]
        env = local.environment() | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(["src", "."])}
        worker = Worker(command, env, self._out / "logs" / f"{name}-{algorithm}.log")
        try:
            yield worker
        finally:
            worker.close()

    def speed(
        self, model: str, lengths: str, algorithm: str, other: str, goal: float, rounds: int, dtype: str
    ) -> tuple[Comparison, ...]:
        """Samples/s of one of our algorithms and of one of TRL's; on a GPU also what each takes of it."""
        setting = replace(SETTINGS[model + LENGTHS[lengths]], dtype=dtype)
        peaks = Pair(ours=0.0, theirs=0.0)

        def samples_per_second(worker: Worker, side: str) -> float:
            nonlocal peaks
            figures = worker.turn()
            peaks = peaks.model_copy(update={side: max(getattr(peaks, side), figures["peak"])})
            return setting.batch / figures[SECONDS]

        with self.side("ours", algorithm, setting) as ours, self.side("TRL", other, setting) as theirs:
            pairs = in_turns(
                lambda: samples_per_second(ours, "ours"),
                lambda: samples_per_second(theirs, "theirs"),
                rounds,
            )
        compared = Comparison(
            what=f"{algorithm}, samples/s of whole rounds, {lengths} lengths",
            against="TRL 1.12.0 PPOTrainer" if other == "ppo" else "TRL 1.16.0 RLOOTrainer",
            model=model,
            unit="samples/s",
            goal=goal,
            goal_is="at least",
            pairs=pairs,
            note=f"random weights; seconds of the {CLOCK}; {model}: {_words(setting)}; "
            f"RLOO: {setting.group} completions a prompt",
        )
        if not local.has_gpu():
            return (compared,)
        memory = compared.model_copy(
            update={
                "what": f"{algorithm}, peak of the GPU's memory in these rounds, {lengths} lengths",
                "unit": "MiB",
                "goal": 0.6,
                "goal_is": "at most",
                "pairs": (peaks,),
                "note": f"vLLM's weights and cache count; {_words(setting)}",
            }
        )
        return (compared, memory)

    def memory(self, lora_rank: int, rounds: int) -> Comparison:
        """Peak memory of a PPO process over that of the same process with models of no size."""
        setting, nothing = (replace(SETTINGS[name], lora_rank=lora_rank) for name in ("memory", "nothing"))

        def peak(name: str, shape: Setting) -> float:
            with self.side(name, "ppo", shape) as worker:
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
            f"{fixed['ours']:.0f} MiB ours, {fixed['TRL']:.0f} MiB TRL; {_words(setting)}; both read "
            f"{setting.forward_rows} rows at once"
            + (f"; adapters of rank {lora_rank} for policy and critic of both" if lora_rank else ""),
        )

    def curve(self) -> tuple[Growth, ...]:
        """Mean reward of each round of both, on a task that both can learn: write a word."""
        setting = SETTINGS["curve"]
        grown = []
        for name in SIDES:
            with self.side(name, "ppo", setting) as worker:
                rewards = [worker.turn()["reward"] for _ in range(max(CURVE))]
            grown.append(
                Growth(
                    what=f"{name}: share of completions with a wanted word",
                    model="demo",
                    size="round of PPO",
                    unit="mean reward",
                    points=tuple((float(at), rewards[at - 1]) for at in CURVE),
                    note=f"both start from one random policy, each samples for itself; {_words(setting)}",
                )
            )
        return tuple(grown)

    def growth(self) -> tuple[Growth, ...]:
        """Samples/s and peak memory of our PPO along the length of completions, and along the batch."""
        along = {
            "tokens a completion": [replace(GROWING, completion_tokens=16 * n) for n in (1, 2, 4, 8)],
            "rollouts a round": [replace(GROWING, batch=8 * n, minibatches=2 * n) for n in (1, 2, 4)],
        }
        grown = []
        for size, settings in along.items():
            speeds, peaks = [], []
            for setting in settings:
                with self.side("ours", "ppo", setting) as worker:
                    worker.turn()
                    figures = worker.turn()
                at = float(setting.batch if size == "rollouts a round" else setting.completion_tokens)
                speeds.append((at, setting.batch / figures[SECONDS]))
                peaks.append((at, figures["peak"]))
            note = f"one round each, after one to warm up; {_words(GROWING)} where nothing grows"
            grown += [
                Growth(what=what, model="smollm2", size=size, unit=unit, points=tuple(points), note=note)
                for what, unit, points in (
                    ("ppo, speed", "samples/s", speeds),
                    ("ppo, peak memory of the whole process", "MiB", peaks),
                )
            ]
        return tuple(grown)


def _words(setting: Setting) -> str:
    """A setting, for people."""
    mixed = f" at most, answers {setting.mean_tokens} at the mean" if setting.mean_tokens else ""
    return (
        f"{setting.layers} layers of width {setting.width}, vocabulary {setting.vocabulary}, "
        f"{setting.batch} rollouts of {setting.prompt_tokens} + {setting.completion_tokens} tokens{mixed}, "
        f"{setting.epochs} passes of {setting.minibatches} updates, {setting.dtype}, "
        + ("one GPU" if local.has_gpu() else "one thread")
    )


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--model", choices=["demo", "smollm2", "smollm2-135m", "all"], default="all")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--lengths", nargs="+", choices=LENGTHS, default=list(LENGTHS))
    parser.add_argument("--trl", type=Path, default=Path("build/trl-comparison/bin/python"))
    parser.add_argument("--out", type=Path, default=Path("build/ppo-bench"), help="models and logs")
    asked = parser.parse_args()
    bench = Bench(asked.trl, asked.out)
    chosen = ("demo", "smollm2") if asked.model == "all" else (asked.model,)
    comparisons, growths = list[Comparison](), list[Growth]()
    comparisons += [
        compared
        for model in chosen
        for lengths in asked.lengths
        for part in AGAINST
        if part in asked.parts and model + LENGTHS[lengths] in SETTINGS
        for compared in bench.speed(model, lengths, *AGAINST[part], asked.rounds, asked.dtype)
    ]
    if "memory" in asked.parts and "smollm2" in chosen:
        comparisons += [bench.memory(lora_rank, asked.rounds) for lora_rank in (0, 16)]
    if "curve" in asked.parts and "demo" in chosen:
        growths += bench.curve()
    if "growth" in asked.parts and "smollm2" in chosen:
        growths += bench.growth()
    save(asked.json, comparisons=tuple(comparisons), growths=tuple(growths))


if __name__ == "__main__":
    main()
