"""Submitting against a stub of the API: followed to the run's end, and cancelled only by choice."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from limbeck.compiled import SHIPPED, Compiled, dump, load
from limbeck.errors import CanceledError, ClusterError, ConfigError, LimbeckError, TimeLimitError
from limbeck.stamp import stamp
from limbeck.submit import parse, prepare, start, wait
from tests.kfp_stub import CREATED, Fault, Stub
from tests.small_pipeline import SMALL
from tests.submitting import ARGUMENTS, RUN, client, serve_alone, start_small


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    yield from serve_alone(monkeypatch)


@pytest.fixture
def small() -> Compiled:
    return load(SMALL)


def node(name: str, state: str, end: str = CREATED, message: str = "") -> dict[str, Any]:
    """A node of Argo's graph as the API lists it."""
    return {"display_name": name, "state": state, "end_time": end} | (
        {"error": {"message": message}} if message else {}
    )


def test_a_run_is_sent_as_the_kfp_command_sends_it(stub: Stub, small: Compiled, tmp_path: Path) -> None:
    start_small(client(stub))
    command = ["run", "create", "-e", "nightly", "-r", "today", "-f", str(SMALL)]
    subprocess.run(
        [Path(sys.executable).with_name("kfp"), *command, "work_uri=s3://bucket/work", 'config={"seed": 1}'],
        env=os.environ | {"KF_PIPELINES_ENDPOINT": stub.url, "HOME": str(tmp_path)},
        check=True,
        capture_output=True,
    )
    ours, theirs = (request.body for request in stub.asked("POST", "/runs"))
    assert ours == theirs


def test_a_pipeline_without_settings_for_kubernetes_is_sent_alone(stub: Stub, small: Compiled) -> None:
    bare = Compiled(small.spec, {})
    start(client(stub), bare, ARGUMENTS, experiment="nightly", name="today")
    assert stub.runs[0]["pipeline_spec"] == small.spec


def test_the_service_account_of_a_run_is_chosen_at_submission(stub: Stub) -> None:
    start_small(client(stub), service_account="limbeck-runner")
    start_small(client(stub))
    assert [run.get("service_account") for run in stub.runs] == ["limbeck-runner", None]


def test_the_command_starts_a_run_as_it_is_told(stub: Stub, tmp_path: Path) -> None:
    options = ["--experiment", "nightly", "--name", "today", "--service-account", "limbeck-runner", "--wait"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "limbeck.cli",
            "submit",
            str(SMALL),
            *options,
            "work_uri=s3://b/w",
            "config={}",
        ],
        env=os.environ | {"KF_PIPELINES_ENDPOINT": stub.url, "HOME": str(tmp_path)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (run,) = stub.runs
    assert (run["display_name"], run["service_account"]) == ("today", "limbeck-runner")
    assert run["runtime_config"] == {"parameters": {"work_uri": "s3://b/w", "config": {}}}


def test_id_and_page_of_a_run_are_said(
    stub: Stub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://kubeflow.example.org/_/pipeline/")
    assert start_small(client(stub)) == "run-1"
    assert capsys.readouterr().out.splitlines() == [
        "limbeck: run run-1",
        "limbeck: https://kubeflow.example.org/_/pipeline/#/runs/details/run-1",
    ]


def test_a_run_that_succeeds_ends_well(
    stub: Stub, small: Compiled, capsys: pytest.CaptureFixture[str]
) -> None:
    kubeflow = client(stub)
    wait(kubeflow, start_small(kubeflow), small)
    assert [line for line in capsys.readouterr().out.splitlines() if "run-1: " in line] == [
        "limbeck: run run-1: pending",
        "limbeck: run run-1: running",
        "limbeck: run run-1: succeeded",
    ]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (
            [
                node("small-x7k2p", "FAILED", "2026-01-01T00:09:00Z"),
                node("root", "FAILED", "2026-01-01T00:08:00Z"),
                node("train", "FAILED", "2026-01-01T00:07:00Z"),
                node("executor(0)", "FAILED", "2026-01-01T00:05:00Z"),
                node("preflight", "SUCCEEDED"),
            ],
            "the run failed in task train all: got no message from Kubeflow",
        ),
        ([node("train-driver", "FAILED"), node("root", "FAILED")], "in task train all: got no message"),
        (
            [
                node("executor", "FAILED", message="OOMKilled"),
                node("train", "FAILED", "2026-01-01T00:07:00Z"),
            ],
            "in task train all: got OOMKilled",
        ),
        (
            [
                node("train", "FAILED", "2026-01-01T00:07:00Z", message="later"),
                node("preflight", "FAILED", "2026-01-01T00:01:00Z", message="no\nsecret"),
            ],
            "in task preflight: got no secret",
        ),
        (
            [
                node("executor", "FAILED", message="of the attempt"),
                node("train", "FAILED", "2026-01-01T00:07:00Z", message="of the task"),
            ],
            "in task train all: got of the task",
        ),
        ([node("somewhere", "FAILED")], "in task somewhere"),
        ([], "the run failed in run run-1: got no message from Kubeflow"),
    ],
    ids=[
        "Argo's graph",
        "the driver",
        "an attempt's message",
        "the first failure",
        "its own message",
        "unknown",
        "nothing",
    ],
)
def test_a_run_that_fails_is_an_error_that_names_the_task(
    stub: Stub, small: Compiled, tasks: list[dict[str, Any]], message: str
) -> None:
    stub.states, stub.tasks = ["RUNNING", "FAILED"], tasks
    kubeflow = client(stub)
    run_id = start_small(kubeflow)
    with pytest.raises(LimbeckError) as caught:
        wait(kubeflow, run_id, small)
    assert caught.value.exit_code == 1
    assert message in str(caught.value)
    assert kubeflow.url(run_id) in str(caught.value)


@pytest.mark.parametrize(
    ("states", "history", "code"),
    [
        (["RUNNING", "CANCELED"], [], 8),
        (["RUNNING", "CANCELING", "FAILED"], [], 8),
        (["FAILED"], ["RUNNING", "CANCELING", "FAILED"], 8),
        (["FAILED"], ["CANCELING", "FAILED", "RUNNING", "FAILED"], 1),
        (["SKIPPED"], [], 1),
    ],
    ids=["cancelled", "seen cancelling", "of the history", "failed when tried again", "skipped"],
)
def test_a_cancelled_run_is_told_from_a_failed_one(
    stub: Stub, small: Compiled, states: list[str], history: list[str], code: int
) -> None:
    stub.states, stub.state_history = states, history
    kubeflow = client(stub)
    run_id = start_small(kubeflow)
    with pytest.raises(LimbeckError) as caught:
        wait(kubeflow, run_id, small)
    assert caught.value.exit_code == code
    assert isinstance(caught.value, CanceledError) == (code == 8)


def test_a_run_that_takes_too_long_is_left_running(
    stub: Stub, small: Compiled, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.states = ["RUNNING"]
    kubeflow = client(stub)
    with pytest.raises(TimeLimitError, match=r"in run run-1: expected 0.05 s") as caught:
        wait(kubeflow, start_small(kubeflow), small, timeout_seconds=0.05)
    assert caught.value.exit_code == 124
    assert not stub.asked("POST", ":terminate")
    assert "run run-1 goes on; `limbeck cancel run-1` cancels it" in capsys.readouterr().out


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("GET", RUN, status=503, times=3)],
        [Fault("GET", RUN, times=2), Fault("GET", RUN, status=500)],
        [Fault("GET", RUN, status=502, content=b"<html>\xff bad gateway</html>")],
        [Fault("GET", "/experiments", status=504), Fault("GET", "/runs", times=2)],
    ],
    ids=["503", "dropped connections and 500", "a proxy's page", "before the run"],
)
def test_a_server_that_is_away_for_a_while_is_asked_again(
    stub: Stub, small: Compiled, faults: list[Fault]
) -> None:
    stub.faults = faults
    kubeflow = client(stub)
    wait(kubeflow, start_small(kubeflow), small)
    assert [fault.times for fault in faults] == [0] * len(faults)


def test_a_server_that_stays_away_ends_the_waiting_not_the_run(
    stub: Stub, small: Compiled, capsys: pytest.CaptureFixture[str]
) -> None:
    kubeflow = client(stub)
    run_id = start_small(kubeflow)
    stub.faults = [Fault("GET", RUN, status=503, times=10_000)]
    with pytest.raises(ClusterError, match="HTTP 503 the database is away") as caught:
        wait(kubeflow, run_id, small)
    assert caught.value.exit_code == 7
    assert "run run-1 goes on" in capsys.readouterr().out
    assert len(stub.asked("GET", RUN)) < 100


@pytest.mark.parametrize("cancel", [False, True], ids=["left running", "cancelled by choice"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_the_command_cancels_the_run_only_by_choice(
    stub: Stub, small: Compiled, capsys: pytest.CaptureFixture[str], number: signal.Signals, *, cancel: bool
) -> None:
    stub.states = ["RUNNING"]
    kubeflow = client(stub)
    run_id = start_small(kubeflow)

    def stop_this_process() -> None:
        stub.wait_for("GET", RUN, times=2)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=stop_this_process)
    before = signal.signal(signal.SIGTERM, lambda received, _: sys.exit(128 + received))
    try:
        thread.start()
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            wait(kubeflow, run_id, small, cancel_on_interrupt=cancel)
    finally:
        signal.signal(signal.SIGTERM, before)
        thread.join()

    assert len(stub.asked("POST", f"{RUN}:terminate")) == cancel
    said = capsys.readouterr().out
    assert ("cancelling run run-1" if cancel else "`limbeck cancel run-1` cancels it") in said


def prepare_small(*given: str, **options: Any) -> tuple[Compiled, dict[str, Any]]:
    return prepare(SMALL, given, **{"experiment": "nightly", "name": "today"} | options)


def test_values_are_read_by_the_type_that_the_pipeline_declares(small: Compiled) -> None:
    given = ["work_uri=7", 'config={"a": 1}', "gpus=2", "kinds=[]", "fast=true", "rate=0.1", "s3_secret=a=b"]
    assert parse(given, small.parameters) == {
        "work_uri": "7",
        "config": {"a": 1},
        "gpus": 2,
        "kinds": [],
        "fast": True,
        "rate": 0.1,
        "s3_secret": "a=b",
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("config={seed: 1}", "the value is not JSON in argument config: expected a STRUCT"),
        ("gpus=two", "the value is not JSON in argument gpus: expected a NUMBER_INTEGER"),
        ("gpus", "not an argument in gpus: expected ARG=VALUE"),
        ("=1", "not an argument"),
    ],
)
def test_a_value_that_cannot_be_read_is_refused(small: Compiled, given: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse([given], small.parameters)
    assert message in str(caught.value)


def test_arguments_of_the_command_line_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("work_uri: s3://of/file\nconfig: {seed: 1}\n")
    _, arguments = prepare_small("work_uri=s3://of/line", arguments_file=file)
    assert arguments == {"work_uri": "s3://of/line", "config": {"seed": 1}}


def test_the_queue_is_chosen_at_submission() -> None:
    compiled, _ = prepare_small("work_uri=s3://b/w", "config={}", queue="night")
    labels = [settings["podMetadata"]["labels"] for settings in compiled.kubernetes.values()]
    assert labels == [{"kueue.x-k8s.io/queue-name": "night"}] * 2


def test_all_errors_are_said_before_anything_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="not submitted: 7 errors"):
        prepare_small("gpus=1.5", "gpu=1", experiment="e" * 129, namespace="n" * 64, name=" ")
    said = capsys.readouterr().out
    for line in (
        "--name: empty",
        "--experiment: longer than 128",
        "--namespace: longer than 63",
        "argument gpus: expected a whole number",
        "argument gpu: unknown parameter",
        "argument config: missing",
        "argument work_uri: missing",
    ):
        assert line in said


def test_images_that_only_stand_for_others_are_not_submitted(capsys: pytest.CaptureFixture[str]) -> None:
    given = [f"{name}=s3://bucket/{name}" for name in ("work_uri", "prompts", "teacher", "student")]
    with pytest.raises(ConfigError, match="not submitted: 3 errors"):
        prepare(SHIPPED["distill_minimal"], given, experiment="nightly", name="today")
    out = capsys.readouterr().out
    assert "image registry.invalid/limbeck/train:0.1.0: an image that no registry has" in out
    assert "limbeck compile --image" in out


GIVEN = ["work_uri=s3://b/w", "heldout=s3://b/h.jsonl", 'models=["s3://b/m"]']


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """`evaluate` with images of a registry."""
    mine = stamp(load(SHIPPED["evaluate"]), images=dict.fromkeys(("tools", "generate"), "registry/image:1"))
    path = tmp_path / "evaluate.yaml"
    path.write_text(dump(mine))
    return path


def test_an_old_kubeflow_gets_what_it_knows(released: Path) -> None:
    assert all("securityContext" in settings for settings in load(released).kubernetes.values())
    sent, _ = prepare(released, GIVEN, kfp="2.15", experiment="nightly", name="today")
    assert not any("securityContext" in settings for settings in sent.kubernetes.values())
    with pytest.raises(ConfigError, match=r"in --kfp: expected 2\.15, 2\.16, 2\.17, got '2\.14'"):
        prepare(released, GIVEN, kfp="2.14", experiment="nightly", name="today")


def test_values_that_no_stage_could_use_are_not_submitted(
    released: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*GIVEN, 'tolerations=[{"Key": "gpu"}]']
    with pytest.raises(ConfigError, match="not submitted: 1 errors"):
        prepare(released, given, experiment="nightly", name="today")
    assert "unknown setting `tolerations.0.Key`" in capsys.readouterr().out
