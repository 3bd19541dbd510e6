"""Limbeck's PPO, and by `bench.rloo` its RLOO, beside TRL's: samples/s of whole rounds.

    python -m bench.ppo --json FILE [--model demo|smollm2|all] [--lengths even mixed gsm8k]
    python -m bench.ppo --json FILE --model smollm2-135m --dtype bfloat16   on a GPU

A round samples completions, scores them, and makes all updates from them. TRL dropped PPOTrainer in 1.13, so
that side runs TRL 1.12.0 in an environment of its own (`make build/trl-comparison/.ready`); its RLOOTrainer
is that of Limbeck's environment. Each side is a long run in a process of its own, with one thread or one GPU;
they take turns.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from bench.measured import Comparison, Pair, in_turns, save
from bench.ppo_settings import SETTINGS, Setting, write_models
from bench.turns import Worker
from limbeck import local

SECONDS, CLOCK = ("seconds", "clock") if local.has_gpu() else ("cpu_seconds", "CPU")
"""Without a GPU a round is one thread's work: CPU seconds hold on a machine that others use too."""
AGAINST = {"ppo": ("ppo", "ppo", 3.0), "rloo": ("rloo", "rloo", 1.2), "ppo-rloo": ("ppo", "rloo", 1.2)}
"""Our algorithm, TRL's, and the ratio to reach."""
LENGTHS = {"even": "", "mixed": ", mixed", "gsm8k": ", gsm8k"}
"""Of prompts and answers, and what a setting's name then ends with."""
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
            note=f"random weights; seconds of the {CLOCK}; {model}: {words(setting)}; "
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
                "note": f"vLLM's weights and cache count; {words(setting)}",
            }
        )
        return (compared, memory)


def words(setting: Setting) -> str:
    """A setting, for people."""
    mixed = f" at most, answers {setting.mean_tokens} at the mean" if setting.mean_tokens else ""
    return (
        f"{setting.layers} layers of width {setting.width}, vocabulary {setting.vocabulary}, "
        f"{setting.batch} rollouts of {setting.prompt_tokens} + {setting.completion_tokens} tokens{mixed}, "
        f"{setting.epochs} passes of {setting.minibatches} updates, {setting.dtype}, "
        + ("old_logprobs of the sampler, " if setting.told else "")
        + (f"rollouts by {setting.sampler}, " if setting.sampler != "vllm" else "")
        + ("one GPU" if local.has_gpu() else "one thread")
    )


def add_places(parser: argparse.ArgumentParser) -> None:
    """What `Bench` is made of."""
    parser.add_argument("--trl", type=Path, default=Path("build/trl-comparison/bin/python"))
    parser.add_argument("--out", type=Path, default=Path("build/ppo-bench"), help="models and logs")


def main(parts: Sequence[str] = ("ppo",)) -> None:
    """Measure and write; `parts` where none are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--model", choices=["demo", "smollm2", "smollm2-135m", "all"], default="all")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=AGAINST, default=list(parts))
    parser.add_argument("--lengths", nargs="+", choices=LENGTHS, default=list(LENGTHS))
    add_places(parser)
    asked = parser.parse_args()
    bench = Bench(asked.trl, asked.out)
    chosen = ("demo", "smollm2") if asked.model == "all" else (asked.model,)
    comparisons = tuple(
        compared
        for model in chosen
        for lengths in asked.lengths
        for part in AGAINST
        if part in asked.parts and model + LENGTHS[lengths] in SETTINGS
        for compared in bench.speed(model, lengths, *AGAINST[part], asked.rounds, asked.dtype)
    )
    save(asked.json, comparisons=comparisons)


if __name__ == "__main__":
    main()
