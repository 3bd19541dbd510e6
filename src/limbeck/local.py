"""Runs a compiled pipeline on this machine: the very YAML that a cluster runs, one process a stage.

`run` starts this module as a process of its own, which hands the YAML to Kubeflow's SubprocessRunner. On
Linux the stages are forks of a process that has imported what they need: see `limbeck.warm_server`.
On the screen comes what a person can follow; all else goes to the log file.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from limbeck import processes, warm, warm_server
from limbeck.compiled import load
from limbeck.devices import num_gpus
from limbeck.progress import say
from limbeck.screen import Screen

STOP_SECONDS = 30.0  # what stages get to end by themselves: a trainer saves its state first
LOG = "run.log"
EVERYWHERE = {
    "HF_HUB_OFFLINE": "1",  # models are named by folder; nothing is fetched behind the user's back
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
WITHOUT_GPU = {
    "DS_ACCELERATOR": "cpu",
    "TORCHDYNAMO_DISABLE": "1",  # else vLLM compiles its log-probabilities for 20 s, which earn nothing here
    "OMP_NUM_THREADS": "1",  # two stages share the cores; threads that spin made small models 15 times slower
    "OMP_WAIT_POLICY": "PASSIVE",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # its own process would load everything once more: 15 to 20 s
}


def run(pipeline: Path, given: Mapping[str, Any], out: Path) -> int:
    """Run a compiled pipeline.

    Args:
        pipeline: The YAML.
        given: The pipeline's parameters.
        out: Folder for the log (`run.log`) and for Kubeflow's own files (`kfp/`), which are replaced.

    Returns:
        0, or the exit code of the stage that failed; its message is on the screen by then.
    """
    shutil.rmtree(out / "kfp", ignore_errors=True)
    (out / "kfp").mkdir(parents=True)
    (out / "kfp" / "arguments.json").write_text(json.dumps(given), encoding="utf-8")
    runner = subprocess.Popen(
        [sys.executable, "-m", "limbeck.local", str(pipeline), str(out)],
        env=environment(),
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=processes.dies_with_parent(signal.SIGTERM),  # noqa: PLW1509 - one call, nothing loaded
    )
    try:
        status = runner.wait()
    finally:
        processes.stop(runner, STOP_SECONDS)
    if status >= 0:
        return status
    say(
        f"error 1: the process that runs the stages was killed ({signal.Signals(-status).name}). "
        "Run the same command again: finished work is kept"
    )
    return 1


def environment() -> dict[str, str]:
    """The variables of stage processes; what the user has set stays."""
    defaults = EVERYWHERE if has_gpu() else EVERYWHERE | WITHOUT_GPU
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return defaults | dict(os.environ) | {"PATH": programs}


def has_gpu() -> bool:
    """Whether this machine shows an NVIDIA GPU."""
    return num_gpus() > 0


def task_names(spec: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, str]:
    """What each task of a compiled pipeline is called on the screen, loops unrolled.

    Args:
        spec: The first document of the YAML.
        given: The pipeline's parameters.

    Returns:
        Names by the task's place below the pipeline root (`for-loop-3-iteration-1/sft` -> `sft all`).
    """
    declared = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    values = {name: parameter.get("defaultValue") for name, parameter in declared.items()} | dict(given)

    def items(iterator: Mapping[str, Any]) -> list[Any]:
        if "raw" in iterator["items"]:
            return list(json.loads(iterator["items"]["raw"]))
        name = iterator["items"]["inputParameter"].removeprefix("pipelinechannel--")
        if name in values:
            return list(values[name])
        # A loop over what a task gives: the shards that `shards` counts.
        parts = [spec["root"], *spec["components"].values()]
        tasks = {name: task for part in parts if "dag" in part for name, task in part["dag"]["tasks"].items()}
        given = tasks[name.removesuffix("-Output")]["inputs"]["parameters"]
        models = value(given["for_each"]) if "for_each" in given else ()
        return list(range(int(value(given["num_shards"])) * max(1, len(models))))

    def value(source: Mapping[str, Any]) -> Any:
        if "componentInputParameter" in source:
            return values[source["componentInputParameter"].removeprefix("pipelinechannel--")]
        return source["runtimeValue"]["constant"]

    def walk(component: Mapping[str, Any], place: str, loop_item: str) -> Iterator[tuple[str, str]]:
        for name, task in component["dag"]["tasks"].items():
            reference = task["componentRef"]["name"]
            inner = spec["components"][reference]
            if "dag" not in inner:
                yield place + reference.removeprefix("comp-"), task["taskInfo"]["name"] + loop_item
            elif "parameterIterator" not in task:
                yield from walk(inner, place, loop_item)
            else:
                loop = items(task["parameterIterator"])
                for index, item in enumerate(loop):
                    shown = f" {item}" if isinstance(item, str) else f" {index + 1}/{len(loop)}"
                    which = loop_item + shown if len(loop) > 1 else loop_item
                    yield from walk(inner, f"{place}{name}-iteration-{index}/", which)

    return dict(walk(spec["root"], "", ""))


@contextmanager
def _warm(scratch: Path, log: TextIO) -> Iterator[None]:
    """Have tasks start as forks of a process that has imported already; Kubeflow runs `sys.executable`."""
    if sys.platform != "linux" or os.environ.get(warm.ADDRESS) == warm.OFF:
        yield
        return
    with warm_server.serving(scratch, log) as program:
        sys.executable = str(program)
        # vLLM's import is shared where it was shown to be sound: forks that use a GPU have not been tried.
        if not has_gpu():
            os.environ[warm.ADDRESS] = str(scratch / warm_server.SOCKET)
        yield


def main(pipeline: Path, out: Path) -> int:
    """Run the pipeline in this process, which leads the process group of all stages.

    Returns:
        0, or the exit code of the stage that failed.
    """
    given = json.loads((out / "kfp" / "arguments.json").read_text(encoding="utf-8"))

    with (
        (out / LOG).open("w", buffering=1, encoding="utf-8") as log,
        # Stages that are killed leave downloads behind. Not in `out`: sockets want short paths.
        tempfile.TemporaryDirectory(prefix="limbeck-", ignore_cleanup_errors=True) as scratch,
    ):
        os.environ["TMPDIR"] = scratch
        screen = Screen(
            terminal=sys.stdout,
            log=log,
            names=task_names(load(pipeline).spec, given),
            # The main thread takes it, wherever it stands: see `stop_stages`.
            on_failure=lambda: os.kill(os.getpid(), signal.SIGTERM),
        )

        def stop_stages(*_: object) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            stopped = screen.stop()
            os.killpg(0, signal.SIGTERM)
            # Here, not in `processes.stop`: while this process lives, they can write to it.
            processes.wait_for_children(STOP_SECONDS - 5)
            processes.end_children(besides=set())
            sys.exit(stopped.exit_code)

        processes.adopt_orphans()  # a stage's shell ends before the stage does
        signal.signal(signal.SIGTERM, stop_stages)
        with _warm(Path(scratch), log), redirect_stdout(screen), redirect_stderr(screen):
            from kfp import components, local  # noqa: PLC0415 - a second, and its warnings belong into the log

            local.init(
                local.SubprocessRunner(use_venv=False), pipeline_root=str(out / "kfp"), raise_on_error=False
            )
            run_pipeline = components.load_component_from_file(str(pipeline))
            run_pipeline(**given)
    return screen.failure.exit_code if screen.failure else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
