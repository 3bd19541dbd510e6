"""A plan whose models and prompts lie in a real object store, and the report that is set beside it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from limbeck.manifest import Manifest, commit
from limbeck.planning.model import Plan
from limbeck.storage import Store
from tests.planning.conftest import FOLDERS
from tests.planning.test_command import made_report


def limbeck(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "limbeck.cli", *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def run_file(folder: Path, uri: str) -> Path:
    """A run whose inputs are in the store."""
    path = folder / "run.yaml"
    values = {name: f"{uri}/{name}" for name in ("teacher", "student")}
    path.write_text(yaml.safe_dump(values | {"work_uri": uri, "prompts": f"{uri}/prompts.jsonl"}))
    return path


def put_inputs(store: Store, uri: str) -> None:
    for name, folder in FOLDERS.items():
        store.write_file(Path(folder) / "config.json", f"{uri}/{name}/config.json")
    rows = [json.dumps({"prompt": f"what is {n}?", "answer": str(n)}) for n in range(100)]
    store.write_bytes(f"{uri}/prompts.jsonl", "\n".join(rows).encode())


def test_models_and_prompts_are_read_from_the_store(store: Store, work_uri: str, tmp_path: Path) -> None:
    put_inputs(store, work_uri)
    done = limbeck("plan", run_file(tmp_path, work_uri), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    plan = Plan.model_validate_json(done.stdout)
    assert plan.assumptions[0].startswith(f"100 prompts, counted in {work_uri}/prompts.jsonl")
    teacher = next(task for task in plan.tasks if task.task == "generate teacher")
    assert teacher.memory["weights"] == 2 * 8_030_261_248
    assert teacher.completion_tokens == 90 * 10 * 256


def test_without_a_store_the_sizes_must_be_said(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = limbeck("plan", run_file(tmp_path, "s3://nowhere/work"), "--prompts", 9, env=env)
    assert done.returncode == 2
    assert "the sizes of the model `teacher` are out of reach in s3://nowhere/work/teacher" in done.stderr
    assert "--teacher DIR" in done.stderr


def test_a_finished_report_is_set_beside_its_plan(store: Store, work_uri: str, tmp_path: Path) -> None:
    put_inputs(store, work_uri)
    plan = tmp_path / "plan.json"
    plan.write_text(limbeck("plan", run_file(tmp_path, work_uri), "--json").stdout)
    pages = tmp_path / "pages"
    pages.mkdir()
    for name in ("report.html", "report.md"):
        (pages / name).write_text("")
    (pages / "report.json").write_text(made_report().model_dump_json())
    uri = f"{work_uri}/report/0123456789abcdef"
    commit(
        store,
        Manifest(
            stage="report",
            kind="report",
            name="report",
            uri=uri,
            objects=store.write_folder(pages, uri),
            inputs={},
            config_hash="",
            code_version="",
        ),
    )
    done = limbeck("report", work_uri, "--out", tmp_path / "out", "--plan", plan)
    assert (done.returncode, done.stderr) == (0, "")
    assert "plan for H100 against what was measured:" in done.stdout
    assert "accepted completions for a GPU-hour: 4,000 (12,000 completions), planned" in done.stdout

    shutil.rmtree(tmp_path / "out")
    plan.write_text("{}")
    done = limbeck("report", work_uri, "--out", tmp_path / "out", "--plan", plan)
    assert done.returncode == 3
    assert done.stderr.startswith("limbeck: error 3: not a plan in ")
    assert not (tmp_path / "out").exists()
