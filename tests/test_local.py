"""Running compiled YAML on this machine: what is shown, what is logged, and that nothing outlives a run."""

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from kfp import compiler, dsl

from limbeck import local, processes
from limbeck.screen import Screen


@dsl.component(base_image="python", install_kfp_package=False)
def count(num_shards: int) -> list[int]:
    print("limbeck: count: counting")
    return list(range(num_shards))


@dsl.component(base_image="python", install_kfp_package=False)
def work(config: dict[str, Any], shard: int) -> None:
    import os
    import signal
    import time
    from pathlib import Path

    print(f"limbeck: work({shard}): 1/2 things, 1.0/s, 3 s left")
    print("noise of an engine", flush=True)
    Path(config["folder"], f"pid-{shard}").write_text(str(os.getpid()))
    behaviour = config["behaviours"][shard]
    if behaviour == "complete":
        print(f"limbeck: work({shard}): already complete, 7 things")
    if behaviour == "error":
        while not Path(config["folder"], "pid-0").exists():  # the stage beside this one is under way
            time.sleep(0.01)
        print("limbeck: error 3: a broken row in s3://here: expected \x1b[31mgood, got bad", flush=True)
        os._exit(3)
    if behaviour == "raise":
        raise ValueError("nobody thought of this")
    if behaviour == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "sleep":
        time.sleep(60)
    if behaviour == "save":  # as a trainer does

        def save(*_: object) -> None:
            for part in range(10):  # it takes a while
                print(f"limbeck: work({shard}): part {part} of the state is stored", flush=True)
                time.sleep(0.1)
            Path(config["folder"], "saved").touch()
            os._exit(10)

        signal.signal(signal.SIGTERM, save)
        Path(config["folder"], "ready").touch()
        time.sleep(60)


@dsl.pipeline(name="shards")
def shards_pipeline(config: dict[str, Any], num_shards: int = 1) -> None:
    counted = count(num_shards=num_shards)
    with dsl.ParallelFor(counted.output) as shard:
        work(config=config, shard=shard)


@dsl.pipeline(name="plain")
def plain_pipeline(config: dict[str, Any], num_shards: int = 1) -> None:
    work(config=config, shard=0)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    compiler.Compiler().compile(shards_pipeline, str(path))
    return path


def arguments(folder: Path, *behaviours: str) -> dict[str, Any]:
    config = {"behaviours": list(behaviours), "folder": str(folder)}
    return {"config": config, "num_shards": len(behaviours)}


def pid_of(folder: Path, shard: int) -> int:
    """Wait until a stage runs."""
    path = folder / f"pid-{shard}"
    deadline = time.monotonic() + 20
    while not (path.exists() and path.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return int(path.read_text())


def is_gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while processes.command_line(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not processes.command_line(pid)


def start_run(pipeline: Path, out: Path, *behaviours: str) -> subprocess.Popen[str]:
    """`local.run` in a process of its own, to be ended from outside."""
    code = f"from pathlib import Path; from limbeck import local; \
        local.run(Path({str(pipeline)!r}), {arguments(out, *behaviours)!r}, Path({str(out)!r}))"
    out.mkdir(exist_ok=True)
    return subprocess.Popen([sys.executable, "-c", code], text=True, start_new_session=True)


def test_each_stage_shows_its_start_progress_and_end(
    pipeline: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert local.run(pipeline, arguments(tmp_path, "well", "complete"), tmp_path) == 0

    lines = re.sub(r"\d+ s", "T s", re.sub(r"\d+:\d\d", "M:S", capfd.readouterr().out)).splitlines()
    assert lines[:3] == [
        "[ 1/3] count",
        "        count: counting",
        "[ 1/3] count: T s (M:S since the start)",
    ]
    shown = {re.sub(r"\[ \d", "[ N", line) for line in lines[3:]}
    assert shown == {
        "[ N/3] work 1/2",
        "[ N/3] work 2/2",
        "        work(0): 1/2 things, 1.0/s, T s left",
        "        work(1): 1/2 things, 1.0/s, T s left",
        "        work(1): already complete, 7 things",
        "[ N/3] work 1/2: T s (M:S since the start)",
        "[ N/3] work 2/2: T s, already complete (M:S since the start)",
    }
    log = (tmp_path / "run.log").read_text()
    assert re.search(r"^work 2/2 +\| +noise of an engine$", log, re.MULTILINE)
    assert "[KFP Executor" in log


def test_an_error_ends_the_run_with_its_line_and_exit_code(
    pipeline: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert local.run(pipeline, arguments(tmp_path, "sleep", "error"), tmp_path) == 3

    last = capfd.readouterr().out.splitlines()[-1]
    assert last == "limbeck: error 3: a broken row in s3://here: expected ?[31mgood, got bad"
    assert is_gone(pid_of(tmp_path, 0))


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("kill", "stage `work` died: Killed (by the system, most often for want of memory)"),
        ("raise", "stage `work` died: ValueError: nobody thought of this"),
    ],
)
def test_a_stage_that_dies_without_a_word_is_named(
    pipeline: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], behaviour: str, words: str
) -> None:
    assert local.run(pipeline, arguments(tmp_path, behaviour), tmp_path) == 1

    last = capfd.readouterr().out.splitlines()[-1]
    assert last == f"limbeck: error 1: {words}. Run the same command again: finished work is kept"


def test_a_killed_runner_is_reported_and_takes_its_stages_along(
    pipeline: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def kill_the_runner() -> None:
        stage = pid_of(tmp_path, 0)
        os.kill(os.getpgid(stage), signal.SIGKILL)

    killer = threading.Thread(target=kill_the_runner)
    killer.start()
    assert local.run(pipeline, arguments(tmp_path, "sleep"), tmp_path) == 1
    killer.join()

    assert "the process that runs the stages was killed (SIGKILL)" in capfd.readouterr().out
    assert is_gone(pid_of(tmp_path, 0))


def test_ctrl_c_ends_every_stage(pipeline: Path, tmp_path: Path) -> None:
    run = start_run(pipeline, tmp_path, "sleep", "sleep")
    stages = [pid_of(tmp_path, 0), pid_of(tmp_path, 1)]

    run.send_signal(signal.SIGINT)

    assert run.wait(20) != 0
    assert all(is_gone(pid) for pid in stages)


@pytest.mark.parametrize("made", [shards_pipeline, plain_pipeline], ids=["in a loop", "alone"])
def test_a_stopped_run_lets_its_stages_save(tmp_path: Path, made: Any) -> None:
    path = tmp_path / "pipeline.yaml"
    compiler.Compiler().compile(made, str(path))
    run = start_run(path, tmp_path / "out", "save")
    deadline = time.monotonic() + 20
    while not (tmp_path / "out" / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    assert run.wait(20) != 0
    assert (tmp_path / "out" / "saved").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_stages_die_with_a_killed_run(pipeline: Path, tmp_path: Path) -> None:
    run = start_run(pipeline, tmp_path, "sleep")
    stage = pid_of(tmp_path, 0)
    runner = os.getpgid(stage)
    variables = Path(f"/proc/{stage}/environ").read_text().split("\0")
    scratch = next(Path(text.removeprefix("TMPDIR=")) for text in variables if text.startswith("TMPDIR="))
    assert scratch.is_dir()

    run.kill()
    run.wait()

    assert is_gone(stage)
    assert is_gone(runner)
    assert not scratch.exists()


def test_files_of_an_earlier_run_are_cleaned(pipeline: Path, tmp_path: Path) -> None:
    old = tmp_path / "kfp" / "shards-2001-01-01"
    old.mkdir(parents=True)
    local.run(pipeline, arguments(tmp_path, "well"), tmp_path)
    assert not old.exists()
    assert list((tmp_path / "kfp").glob("shards-*/count/executor_output.json"))


def test_the_variables_of_the_user_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    variables = local.environment()
    assert variables["OMP_NUM_THREADS"] == "7"
    assert variables["DS_ACCELERATOR"] == "cpu"
    assert variables["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


class Terminal(io.StringIO):
    """A tty to write to."""

    def isatty(self) -> bool:
        return True


def test_lines_of_two_stages_are_kept_apart_though_they_come_in_pieces() -> None:
    terminal = io.StringIO()
    screen = Screen(terminal, io.StringIO(), {"a": "stage a", "b": "stage b"}, on_failure=lambda: None)
    turns = threading.Barrier(2)

    def pass_on(place: str) -> None:
        for piece in ('   "output', f'File": "/root/p-1/{place}/executor', '_output.json"\n'):
            turns.wait()
            screen.write(piece)
        turns.wait()
        screen.write("    ")
        turns.wait()
        screen.write(f"limbeck: {place}: hello\n")

    other = threading.Thread(target=pass_on, args=("b",))
    other.start()
    pass_on("a")
    other.join()

    lines = {re.sub(r"\[ \d", "[ N", line) for line in terminal.getvalue().splitlines()}
    assert lines == {"[ N/2] stage a", "[ N/2] stage b", "        a: hello", "        b: hello"}


def test_a_terminal_rewrites_progress_and_keeps_the_rest() -> None:
    terminal = Terminal()
    screen = Screen(terminal, io.StringIO(), {}, on_failure=lambda: None)
    screen.write("limbeck: sft: 1/3 steps, 9 s left\nlimbeck: sft: 2/3 steps, 4 s left\n")
    screen.write("limbeck: sft: 3/3 steps, done\nlimbeck: sft: loss 0.3\n")
    assert terminal.getvalue() == (
        "        sft: 1/3 steps, 9 s left"
        "\r\x1b[K        sft: 2/3 steps, 4 s left"
        "\r\x1b[K        sft: 3/3 steps, done\n"
        "        sft: loss 0.3\n"
    )


def test_a_file_gets_progress_now_and_then_and_all_the_rest() -> None:
    file = io.StringIO()
    screen = Screen(file, io.StringIO(), {"sft": "sft"}, on_failure=lambda: None)
    screen.write('"outputFile": "/root/p-1/sft/executor_output.json"\n')
    screen.write("limbeck: sft: 1/3 steps, 9 s left\nlimbeck: sft: 2/3 steps, 4 s left\n")
    screen.write("limbeck: sft: 3/3 steps, done\n")
    assert file.getvalue().splitlines()[1:] == [
        "        sft: 1/3 steps, 9 s left",
        "        sft: 3/3 steps, done",
    ]
