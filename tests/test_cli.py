"""The command line: one line for each failure, a report where it was asked for, nothing left running."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import compiler, dsl
from kfp.dsl import Artifact, Output

from limbeck import processes
from limbeck.storage import Store

LIMBECK = [sys.executable, "-m", "limbeck.cli"]


@dsl.component(base_image="python", install_kfp_package=False)
def report(work_uri: str, prompts: str, config: dict[str, Any], run_report: Output[Artifact]) -> None:
    import os
    import tempfile
    import time
    from pathlib import Path

    from limbeck.manifest import Manifest
    from limbeck.storage import Store

    print("limbeck: report: working", flush=True)
    if config["seed"] == 3:
        print("limbeck: error 6: the gate is closed", flush=True)
        os._exit(6)
    if config["seed"] == 9:
        time.sleep(60)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("report.html", "report.md"):
            Path(folder, name).write_text(prompts)
        decision = '{"decision": {"headline": "%sPromote.", "reason": "It won."}}'
        decision = "{}" if config["seed"] == 5 else decision % ("\\u001b[2J" if config["seed"] == 4 else "")
        Path(folder, "report.json").write_text(decision)
        objects = Store().write_folder(Path(folder), work_uri)
    manifest = Manifest(
        stage="report", kind="report", name="report", uri=work_uri, objects=objects,
        inputs={}, config_hash="", code_version="",
    )  # fmt: skip
    Path(run_report.path).write_text(manifest.to_json())


@dsl.pipeline(name="small")
def small(work_uri: str, prompts: str, config: dict[str, Any]) -> None:
    report(work_uri=work_uri, prompts=prompts, config=config)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    compiler.Compiler().compile(small, str(path))
    return path


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    """A run file whose inputs are in the store, so that nothing is uploaded."""
    return write_run_file(tmp_path, seed=1)


def write_run_file(folder: Path, seed: int = 1, **parameters: Any) -> Path:
    values = {"work_uri": "s3://test/cli", "prompts": "s3://data/prompts.jsonl", "config": {"seed": seed}}
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(values | parameters))
    return path


def without_store() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}


def limbeck(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LIMBECK, *map(str, arguments)], env=env, capture_output=True, text=True, check=False
    )


def test_a_run_starts_its_own_store_and_brings_the_report(
    pipeline: Path, run_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = limbeck("run", run_file, "--out", out, "--pipeline", pipeline, env=without_store())

    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == f"limbeck: running; the log of every stage is {out}/run.log"
    assert lines[1:3] == ["[ 1/1] report", "        report: working"]
    assert lines[-2:] == [
        "limbeck: Promote. It won.",
        f"limbeck: report: {out}/report.html (the same in report.md and report.json)",
    ]
    assert (out / "report.md").read_text() == "s3://data/prompts.jsonl"
    assert (out / "store" / "data").is_dir()
    assert not (out / "store" / "weed.pid").exists()


def test_a_run_uses_the_store_that_the_environment_names(
    pipeline: Path, run_file: Path, tmp_path: Path, store: Store
) -> None:
    out = tmp_path / "out"
    result = limbeck("run", run_file, "--out", out, "--pipeline", pipeline)
    assert result.returncode == 0, result.stderr
    assert not (out / "store").exists()
    assert any(uri.endswith("report.html") for uri in store.sizes("s3://test/cli"))


def test_a_failing_stage_gives_its_message_and_its_exit_code(
    pipeline: Path, tmp_path: Path, store: Store
) -> None:
    result = limbeck("run", write_run_file(tmp_path, seed=3), "--out", tmp_path, "--pipeline", pipeline)
    assert result.returncode == 6
    assert result.stdout.splitlines()[-1] == "limbeck: error 6: the gate is closed"
    assert result.stderr == f"limbeck: the whole log is {tmp_path}/run.log\n"


def test_nothing_in_a_report_steers_the_terminal(pipeline: Path, tmp_path: Path, store: Store) -> None:
    result = limbeck("run", write_run_file(tmp_path, seed=4), "--out", tmp_path, "--pipeline", pipeline)
    assert result.returncode == 0, result.stderr
    assert "limbeck: \\x1b[2JPromote. It won." in result.stdout.splitlines()


def test_a_report_without_a_decision_is_one_line(pipeline: Path, tmp_path: Path, store: Store) -> None:
    result = limbeck("run", write_run_file(tmp_path, seed=5), "--out", tmp_path, "--pipeline", pipeline)
    assert result.returncode == 3
    assert result.stderr.startswith("limbeck: error 3: a report.json without a decision in s3://test/cli/")
    assert result.stderr.count("\n") == 1


def test_preflight_says_all_that_keeps_a_run_from_starting_at_once(tmp_path: Path) -> None:
    run_file = write_run_file(tmp_path, teacher="t", models=["m"], config={"engine": {"max_model_len": 256}})
    result = limbeck("preflight", run_file, "--pipeline", "distill_rewards", env=without_store())
    assert result.returncode == 2
    errors = [line for line in result.stdout.splitlines() if "preflight: error: " in line]
    for message in (
        "missing parameter `checkpoint` in pipeline distill-rewards: expected checkpoint, label_uri, ",
        "unknown parameter `prompts` in pipeline distill-rewards",
        "missing parameter `prepared_uri`: expected a finished `prepare`",
        "missing parameter `label_uri`: expected a finished `label`",
        "missing parameter `checkpoint`: expected the warmed-up student",
        "completions leave no room for a prompt",
    ):
        assert any(f"preflight: error: {message}" in line for line in errors), message
    assert any("got prompts, models. Remove them" in line for line in errors)


@pytest.mark.parametrize(
    ("settings", "exit_code", "message"),
    [
        ({"config": {"sead": 1}}, 2, "unknown setting `config.sead`"),
        ({"prompts": "none.jsonl"}, 2, "no such file in `prompts`"),
        ({"teacher": "."}, 3, "not a Hugging Face checkpoint"),
        ({"student": ""}, 2, "missing parameter `student` in pipeline distill"),
        ({"models": ["s3://m"]}, 2, "unknown parameter `models` in pipeline distill"),
    ],
)
def test_a_mistake_ends_in_one_line_before_anything_starts(
    tmp_path: Path, settings: dict[str, Any], exit_code: int, message: str
) -> None:
    models = {"teacher": "s3://models/teacher", "student": "s3://models/student"}
    result = limbeck("run", write_run_file(tmp_path, **(models | settings)), "--out", tmp_path / "out")
    assert result.returncode == exit_code
    assert result.stderr.startswith(f"limbeck: error {exit_code}: {message}")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "the object store does not answer"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "the object store refuses these credentials"),
    ],
)
def test_a_store_that_cannot_be_used_ends_in_one_line(
    pipeline: Path,
    run_file: Path,
    tmp_path: Path,
    store: Store,
    variables: dict[str, str],
    message: str,
) -> None:
    result = limbeck(
        "run", run_file, "--out", tmp_path / "out", "--pipeline", pipeline, env=dict(os.environ) | variables
    )
    assert result.returncode == 4
    assert result.stderr.startswith(f"limbeck: error 4: {message}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_leaves_nothing_running(
    pipeline: Path, tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    run = subprocess.Popen(
        [*LIMBECK, "run", str(write_run_file(tmp_path, seed=9)), "--out", str(tmp_path), "--pipeline",
         str(pipeline)],
        env=without_store(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert run.stdout is not None
    while "report: working" not in run.stdout.readline():
        assert run.poll() is None
    server = int((tmp_path / "store" / "weed.pid").read_text())

    run.send_signal(number)

    _, errors = run.communicate(timeout=30)
    assert run.returncode == exit_code
    assert "Traceback" not in errors
    assert not processes.command_line(server)
    deadline = time.monotonic() + 5
    while running_in(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running_in(tmp_path)


def running_in(folder: Path) -> list[list[str]]:
    """Command lines of processes that were given a path below a folder."""
    lines = [processes.command_line(int(path.name)) for path in Path("/proc").glob("[0-9]*")]
    return [line for line in lines if any(str(folder) in part for part in line)]


def test_version_and_help() -> None:
    assert limbeck("--version").stdout.strip() == "0.1.0"
    assert "demo" in limbeck("--help").stdout
