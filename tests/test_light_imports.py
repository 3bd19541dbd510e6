"""What describes a run must import without what runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

from limbeck import tasks

HEAVY = {"torch", "vllm", "deepspeed", "transformers", "trl"}
COMPONENTS = [
    f"components.{path.parent.name}.component" for path in Path("components").glob("*/component.py")
]
TASKS = [f"limbeck.tasks.{name}" for name in ("ablation", "launching", "stages", "trainings", "wiring")]
PIPELINES = ["pipelines.compile", "pipelines.distill.pipeline"]


@pytest.mark.parametrize(
    ("modules", "forbidden"),
    [
        (["limbeck.config", "limbeck.records", "limbeck.inputs", "limbeck.seaweed"], HEAVY | {"kfp"}),
        (["limbeck.init_file", "limbeck.compiled", "limbeck.lint"], HEAVY | {"kfp", "boto3", "pyarrow"}),
        (["limbeck.status", "limbeck.lineage", "limbeck.fetch_report"], HEAVY | {"kfp"}),
        (["limbeck.preflight", "limbeck.submit", "limbeck.components"], HEAVY | {"kfp"}),
        (["limbeck.cli"], HEAVY | {"kfp", "boto3", "pyarrow", "pydantic"}),
        ([*TASKS, "limbeck.local", "limbeck.demo.inputs"], HEAVY | {"kfp", "scipy.stats"}),
        (["limbeck.tasks.stages"], {"limbeck.tasks.trainings", "limbeck.tasks.wiring", "pyarrow"}),
        (COMPONENTS + PIPELINES, HEAVY | {"limbeck.tasks"}),
    ],
    ids=[
        "settings",
        "compiled files",
        "results",
        "before a run",
        "command line",
        "tasks",
        "a task",
        "pipelines",
    ],
)
def test_light_modules_import_nothing_heavy(modules: list[str], forbidden: set[str]) -> None:
    code = f"import sys, {', '.join(modules)}; print(sorted({forbidden!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_each_task_is_there_and_nothing_else_is() -> None:
    for name in tasks.__all__:
        assert getattr(tasks, name).__name__ == name
    with pytest.raises(ImportError):
        from limbeck.tasks import no_task  # noqa: F401, PLC0415
