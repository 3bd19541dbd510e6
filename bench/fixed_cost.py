"""What stages cost besides their work: the tasks of a run whose work is next to nothing.

A round runs the whole pipeline on tiny models (`bench.cut_run`) and, in turns with it, does alone what each
kind of stage cannot do without: a Python that imports the stage's engine or trainer, and starts the engine.
Of a stage's task counts all from its start to its end, less the time from the beginning of its work to its
last line of progress; of one that tells of no progress, all until its manifest is there, less what that says.
Each round has a run whose tasks are forks of a warm process, and one whose tasks start by themselves, as pods
do; of these it is also told what they take beside all that is not ours: besides imports and engine
Kubeflow's executor, on a component that does nothing, and a client of the store as boto3 makes one.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from bench import cut_run
from bench.followed import Task, follow
from bench.measured import Comparison, Pair, save
from limbeck import local, warm_server
from limbeck import warm as warm_tasks
from limbeck.manifest import parse
from limbeck.warm import SERVED

ENGINE = """
from pathlib import Path
from limbeck.config import EngineConfig, ModelConfig
from limbeck.sampler import VllmSampler
engine = EngineConfig(max_model_len=64, kv_cache_mib=64, enforce_eager=True)
VllmSampler(Path({folder!r}), ModelConfig(dtype="float32"), engine)
"""
TRAINER = "import limbeck.trainer.{stage}"
ALONE = "imports and engine start alone"
NOT_OURS = f"{ALONE}, Kubeflow's executor and a client of boto3"
CLIENT = "import boto3\nboto3.client('s3', region_name='us-east-1')"
THEMSELVES = "tasks that start by themselves"
LIGHT = "import limbeck.tasks.stages, limbeck.stages.{stage}"
NEEDS = {
    "generate": ENGINE,
    "judge": ENGINE,
    "evaluate": ENGINE,
    "sft": TRAINER,
    "reward": TRAINER,
    "ppo": TRAINER + ENGINE,
    "label": LIGHT,
    "report": LIGHT + ", limbeck.planning.page",  # what was planned is shown beside what was measured
}
"""What a stage's Python must do before and besides its work."""
QUIET = {"label": "labelled", "report": "run_report"}
"""Stages that tell of no progress, and an output that is a manifest, which says how long they worked."""
NOTHING = "from kfp import dsl\nfrom kfp.dsl import *\n\ndef nothing() -> None:\n    pass\n"
"""A component as Kubeflow compiles one, whose task is Kubeflow's executor and no more."""
NOTE = (
    "mean over the stage's tasks in a run of distill with one shard; of the first task of each kind too, "
    "which pays for what the later ones share"
)


def unavoidable(stage: str, folder: Path) -> float:
    """Seconds of a Python that imports and starts what a stage needs, and no more."""
    code = NEEDS[stage].format(stage=stage, folder=str(folder / "student"))
    # Engines leave threads behind that take their time to end.
    return _seconds("-c", code + "\nimport os; os._exit(0)")


def of_others(folder: Path) -> float:
    """Seconds that no task can do without, besides imports: of Kubeflow's executor, and of a boto3 client."""
    module = folder / "nothing.py"
    module.write_text(NOTHING)
    given = json.dumps({"inputs": {}, "outputs": {"outputFile": str(folder / "executor_output.json")}})
    executor = (
        *("-m", SERVED, "--component_module_path", str(module)),
        *("--function_to_execute", "nothing", "--executor_input", given),
    )
    return _seconds(*executor) - _seconds("-c", "") + _seconds("-c", CLIENT) - _seconds("-c", "import boto3")


def _seconds(*arguments: str) -> float:
    """Of a Python."""
    started = time.monotonic()
    _python(*arguments)
    return time.monotonic() - started


def _python(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, *arguments], env=warm_server.RUNTIME | local.environment(), check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def fixed(run_file: Path, out: Path, *, warm: bool) -> dict[str, float]:
    """Mean seconds besides the work of the tasks of one run, by stage."""
    found = defaultdict[str, list[Task]](list)
    env = {} if warm else {warm_tasks.ADDRESS: warm_tasks.OFF}
    for task in follow(cut_run.lines(run_file, out, env)):
        found[task.name.split()[0]].append(task)
    clocks = time.time() - time.monotonic()
    means = {
        stage: fmean(task.ended - task.begun - task.work_seconds for task in found[stage]) for stage in NEEDS
    }
    for stage, output in QUIET.items():
        paths = sorted((path for path in (out / "kfp").rglob(output) if path.is_file()), key=_written)
        means[stage] = fmean(
            _written(path) - clocks - task.begun - parse(path.read_bytes(), str(path)).wall_seconds
            for task, path in zip(found[stage], paths, strict=True)
        )
    return means


def _written(path: Path) -> float:
    """When a file was written, in seconds since the epoch."""
    return path.stat().st_mtime


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    pairs = defaultdict[tuple[str, str, str], list[Pair]](list)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run_file = cut_run.write(folder, num_shards=1)
        for number in range(asked.rounds):
            alone = {stage: unavoidable(stage, folder) for stage in NEEDS}
            others = of_others(folder)
            for warm in (True, False):
                ours = fixed(run_file, folder / f"out-{number}-{warm}", warm=warm)
                for stage, theirs in alone.items():
                    how = "a local run" if warm else THEMSELVES
                    pairs[stage, how, ALONE].append(Pair(ours=ours[stage], theirs=theirs))
                    if not warm:
                        pairs[stage, how, NOT_OURS].append(Pair(ours=ours[stage], theirs=theirs + others))
    comparisons = [
        Comparison(
            what=f"fixed cost of {stage}, {how}",
            note=NOTE
            + ("; LIMBECK_WARM=0, as in a pod: each task imports for itself" if how == THEMSELVES else ""),
            against=against,
            model="demo",
            unit="s",
            goal=1.15,
            goal_is="at most",
            pairs=tuple(measured),
        )
        for (stage, how, against), measured in pairs.items()
    ]
    save(asked.json, comparisons=tuple(comparisons))


if __name__ == "__main__":
    main()
