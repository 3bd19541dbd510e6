"""How time and memory of the stages without a GPU grow: `python -m bench.growth [--rows 1000 10000 100000]`.

Rows are made, put into an embedded SeaweedFS, and read by each stage in a process of its own that has one
CPU (taskset) and a hard limit on its private memory (prlimit --data, RLIMIT_DATA: heap, stacks, anonymous
maps; the kernel refuses what goes over, and the stage fails). The limit counts what is mapped, touched or
not, so it is stricter than a container's. Code and files do not count there; the peak that is shown, of
resident memory, has them too. Imports are not in the time. Speed is rows a second of the stage's own CPU
time: what else the machine does, and a store's slow answer, are not in it.

`evaluate` asks a sampler that has its answers ready, so what is measured is the stage around the engine.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from bench.made_rows import NUM_SHARDS, Maker
from bench.measured import Growth, save
from limbeck import seaweed
from limbeck.config import Config
from limbeck.manifest import Manifest
from limbeck.shards import Shard

TIMEOUT_SECONDS = 3600
"""A stage whose transfer thread found no memory to start in would wait for it."""
SAMPLES = 10
"""Completions of a prompt, where nothing else is asked."""
STAGES = ("prepare", "label", "evaluate", "merge", "report")
MODELS = (
    "teacher",
    "student",
    "sft_all",
    "sft_selected",
    "ppo_model",
    "ppo_mixed",
    "ppo_agreement",
    "other",
)
READ = {
    "prepare": "rows of a JSONL file",
    "label, teacher": "completions and their judgements",
    "label, student": "completions, with given labels",
    "evaluate": "held-out answers of one model, ready before they are asked for",
    "merge": f"held-out answers of one model in {NUM_SHARDS} shards",
    "report": "completions of teacher and student, judgements, held-out answers of 8 models",
}


class Run(NamedTuple):
    """One stage, measured once."""

    shown: str
    rows: int
    """What it read."""
    seconds: float
    cpu_seconds: float
    peak_mib: float
    made: list[Manifest]


class Bench(NamedTuple):
    """What all measurements of one size share."""

    maker: Maker
    work_uri: str
    samples: int
    heldout: int
    memory_mib: int

    def prepare(self, rows: int) -> Iterator[Run]:
        """`prepare` of one file, a part of which is held out."""
        yield self._run("prepare", {"data": self.maker.data_set(rows), "heldout_data": ""})

    def label_and_report(self, rows: int, stages: list[str]) -> Iterator[Run]:
        """`label` of the teacher, then of the student, and `report` of all that and the held-out answers."""
        maker, num_prompts = self.maker, max(1, rows // self.samples)
        prompts = maker.prompts(num_prompts)
        teacher = maker.completions("teacher", num_prompts, self.samples)
        judgements = maker.judgements("teacher", num_prompts, self.samples)
        student = maker.completions("student", num_prompts, self.samples)
        given = {"prompts": prompts, "completions": teacher, "judgements": judgements, "given_labels": None}
        voted = self._run("label", given, "label, teacher")
        if "label" in stages:
            yield voted
            given |= {"completions": student, "judgements": (), "given_labels": voted.made[0]}
            yield self._run("label", given, "label, student")
        if "report" not in stages:
            return
        heldout = self.heldout or max(2, rows // 100)
        policies = tuple(maker.checkpoint("ppo", name) for name in MODELS if name.startswith("ppo"))
        yield self._run(
            "report",
            {
                "prompts": prompts,
                "heldout": maker.prompts(heldout, "heldout"),
                "gold": maker.gold(("prompts", num_prompts), ("heldout", heldout)),
                "completions": teacher,
                "judgements": judgements,
                "labels": voted.made[0],
                "sft_checkpoints": (maker.checkpoint("sft", "sft_selected"),),
                "student_completions": student,
                "reward_model": maker.checkpoint("reward", "reward"),
                "policies": policies,
                "policy": policies[0],
                "results": tuple(maker.results(name, heldout, 4) for name in MODELS),
            },
        )

    def evaluate(self, rows: int, stages: list[str]) -> Iterator[Run]:
        """`evaluate` of one model as a whole, then in shards, and their merge."""
        num_prompts = max(2, rows // (1 + Config().evaluate.samples_per_prompt))
        given = {
            "heldout": self.maker.prompts(num_prompts, "heldout"),
            "gold": self.maker.gold(("heldout", num_prompts)),
        }
        if "evaluate" in stages:
            yield self._run("evaluate", given)
        if "merge" in stages:
            sharded = self._replace(work_uri=f"{self.work_uri}/sharded")
            shards = [Shard(index=number, count=NUM_SHARDS) for number in range(NUM_SHARDS)]
            made = [sharded._run("evaluate", given | {"shard": shard}).made[0] for shard in shards]
            yield sharded._run("merge", {"shards": tuple(made)})

    def _run(self, stage: str, given: Mapping[str, Any], shown: str = "") -> Run:
        """Run one stage under the limits."""
        limit = "unlimited" if not self.memory_mib else str(self.memory_mib << 20)
        limits = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0))), "prlimit", f"--data={limit}"]
        process = subprocess.run(
            [*limits, sys.executable, "-m", "bench.one_stage"],
            input=json.dumps(
                {
                    "stage": stage,
                    "given": {name: _plain(value) for name, value in given.items()},
                    "work_uri": self.work_uri,
                }
            ),
            stdout=subprocess.PIPE,
            text=True,
            # Else Arrow's allocator maps 1 GiB ahead, which costs nothing but counts for the limit.
            env={**os.environ, "MIMALLOC_ARENA_EAGER_COMMIT": "0"},
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        if process.returncode:
            sys.exit(f"{shown or stage}: exit status {process.returncode}\n{process.stdout}")
        made = json.loads(process.stdout.splitlines()[-1])
        manifests = [Manifest.model_validate_json(text) for text in made.pop("made")]
        return Run(shown or stage, **made, made=manifests)


def main() -> None:
    """Measure, print a table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000], help="of each input")
    parser.add_argument("--rounds", type=int, default=5, help="the median counts")
    parser.add_argument("--stages", nargs="+", default=STAGES, choices=STAGES)
    parser.add_argument("--prompt-chars", type=int, default=300)
    parser.add_argument("--text-chars", type=int, default=400, help="characters of a completion")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="completions of a prompt")
    parser.add_argument(
        "--heldout",
        type=int,
        default=0,
        help="held-out prompts of the report; 0: rows / 100",
    )
    parser.add_argument("--memory-mib", type=int, default=2048, help="0: no limit")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    print("| stage | rows | peak MiB | seconds | CPU seconds | rows/CPU s |", flush=True)
    print("|:--|--:|--:|--:|--:|--:|", flush=True)
    found: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for rows in sorted(asked.rows):
        measured: dict[str, list[Run]] = defaultdict(list)
        for _ in range(asked.rounds):
            for run in _measured(rows, asked):
                measured[run.shown].append(run)
        for shown, runs in measured.items():
            seconds = statistics.median(run.seconds for run in runs)
            cpu_seconds = statistics.median(run.cpu_seconds for run in runs)
            peak = statistics.median(run.peak_mib for run in runs)
            speed = runs[0].rows / cpu_seconds
            found[shown].append((runs[0].rows, speed, peak))
            print(
                f"| {shown} | {runs[0].rows:,} | {peak:,.0f} | {seconds:.1f} | {cpu_seconds:.1f} | "
                f"{speed:,.0f} |",
                flush=True,
            )
    if asked.json:
        save(asked.json, growths=tuple(_growths(found, asked.rounds)))


def _measured(rows: int, asked: argparse.Namespace) -> Iterator[Run]:
    """All stages that were asked for, once, on rows in a store of their own."""
    with TemporaryDirectory() as folder, seaweed.serve(Path(folder)) as store:
        store.make_bucket("s3://bench")
        rng = random.Random(1)  # noqa: S311 - no secrets
        maker = Maker(store, "s3://bench/made", rng, asked.prompt_chars, asked.text_chars)
        bench = Bench(maker, "s3://bench/out", asked.samples, asked.heldout, asked.memory_mib)
        if "prepare" in asked.stages:
            yield from bench.prepare(rows)
        if {"label", "report"} & set(asked.stages):
            yield from bench.label_and_report(rows, asked.stages)
        if {"evaluate", "merge"} & set(asked.stages):
            yield from bench.evaluate(rows, asked.stages)


def _growths(found: Mapping[str, list[tuple[float, float, float]]], rounds: int) -> Iterator[Growth]:
    """Speed and memory of each stage."""
    for shown, points in found.items():
        note = f"{READ[shown]}; " + (f"median of {rounds}" if rounds > 1 else "measured once")
        speeds = tuple((rows, speed) for rows, speed, _ in points)
        peaks = tuple((rows, peak) for rows, _, peak in points)
        yield Growth(what=shown, model="none", size="rows", unit="rows/CPU s", points=speeds, note=note)
        yield Growth(what=f"{shown}, memory", model="none", size="rows", unit="peak MiB", points=peaks)


def _plain(value: Any) -> Any:
    """A manifest, some, a shard, or None as JSON; an address stays one."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return [item.model_dump(mode="json") for item in value]
    return value and value.model_dump(mode="json")


if __name__ == "__main__":
    main()
