"""Memory and time of the stages without a GPU: `python -m bench.cpu_stages [--rows 1000000]`.

Rows are made, put into an embedded SeaweedFS, and read by each stage in a process of its own that has one
CPU (taskset) and a hard limit on its private memory (prlimit --data, RLIMIT_DATA: heap, stacks, anonymous
maps; the kernel refuses what goes over, and the stage fails). The limit counts what is mapped, touched or
not, so it is stricter than a container's. Code and files do not count there; the peak that is shown, of
resident memory, has them too.
"""

import argparse
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.made_rows import Maker
from limbeck import seaweed
from limbeck.manifest import Manifest

TIMEOUT_SECONDS = 3600
"""A stage whose transfer thread found no memory to start in would wait for it."""
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


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the largest input")
    parser.add_argument("--prompt-chars", type=int, default=300)
    parser.add_argument("--text-chars", type=int, default=400, help="characters of a completion")
    parser.add_argument("--samples", type=int, default=10, help="completions of a prompt")
    parser.add_argument("--heldout", type=int, default=2000, help="held-out prompts, 40 answers each")
    parser.add_argument("--memory-mib", type=int, default=2048, help="0: no limit")
    parser.add_argument("--stages", nargs="+", default=["prepare", "label", "report"])
    asked = parser.parse_args()
    print("| stage | rows | peak MiB | seconds | CPU seconds | rows/s |", flush=True)
    print("|:--|--:|--:|--:|--:|--:|", flush=True)
    with TemporaryDirectory() as folder, seaweed.serve(Path(folder)) as store:
        store.make_bucket("s3://bench")
        rng = random.Random(1)  # noqa: S311 - no secrets
        maker = Maker(store, "s3://bench/made", rng, asked.prompt_chars, asked.text_chars)
        if "prepare" in asked.stages:
            given = {"data": maker.data_set(asked.rows), "heldout_data": ""}
            _measure("prepare", given, asked.memory_mib)
        if {"label", "report"} & set(asked.stages):
            _label_and_report(
                maker,
                asked.rows // asked.samples,
                asked.heldout,
                asked.samples,
                asked.memory_mib,
                asked.stages,
            )


def _label_and_report(
    maker: Maker, num_prompts: int, num_heldout: int, samples: int, memory_mib: int, stages: Sequence[str]
) -> None:
    prompts = maker.prompts(num_prompts)
    teacher = maker.completions("teacher", num_prompts, samples)
    student = maker.completions("student", num_prompts, samples)
    judgements = maker.judgements("teacher", num_prompts, samples)
    given = {"prompts": prompts, "completions": teacher, "judgements": judgements, "given_labels": None}
    labels, _ = _measure("label", given, memory_mib, shown="label, teacher")
    if "label" in stages:
        given |= {"completions": student, "judgements": (), "given_labels": labels}
        _measure("label", given, memory_mib, shown="label, student")
    if "report" not in stages:
        return
    policies = tuple(maker.checkpoint("ppo", name) for name in MODELS if name.startswith("ppo"))
    inputs = {
        "prompts": prompts,
        "heldout": maker.prompts(num_heldout, "heldout"),
        "gold": maker.gold(("prompts", num_prompts), ("heldout", num_heldout)),
        "completions": teacher,
        "judgements": judgements,
        "labels": labels,
        "sft_checkpoints": (maker.checkpoint("sft", "sft_selected"),),
        "student_completions": student,
        "reward_model": maker.checkpoint("reward", "reward"),
        "policies": policies,
        "policy": policies[0],
        "results": tuple(maker.results(name, num_heldout, 4) for name in MODELS),
    }
    _measure("report", inputs, memory_mib)


def _measure(stage: str, given: Mapping[str, Any], memory_mib: int, shown: str = "") -> list[Manifest]:
    """Run one stage under the limits, print its line, and give what it made."""
    limit = "unlimited" if not memory_mib else str(memory_mib << 20)
    limits = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0))), "prlimit", f"--data={limit}"]
    process = subprocess.run(
        [*limits, sys.executable, "-m", "bench.one_stage"],
        input=json.dumps(
            {
                "stage": stage,
                "given": {name: _plain(value) for name, value in given.items()},
                "work_uri": "s3://bench/out",
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
    print(
        f"| {shown or stage} | {made['rows']:,} | {made['peak_mib']:,.0f} | {made['seconds']:.0f} | "
        f"{made['cpu_seconds']:.0f} | {made['rows'] / made['seconds']:,.0f} |",
        flush=True,
    )
    return [Manifest.model_validate_json(text) for text in made["made"]]


def _plain(value: Any) -> Any:
    """A manifest, some, or None as JSON; an address stays one."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return [item.model_dump(mode="json") for item in value]
    return value and value.model_dump(mode="json")


if __name__ == "__main__":
    main()
