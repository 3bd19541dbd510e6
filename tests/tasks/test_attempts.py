"""A stage that crashes starts again in its container, with the cause in the log; SIGTERM reaches its work."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from limbeck import processes

PATIENCE_SECONDS = 30.0
MADE = "limbeck: made 200000"
AGAIN = "Run it again: it goes on with what is stored"


def start(folder: Path, *plans: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.tasks.attempts_process", str(folder), *plans],
        cwd=Path(__file__).parents[2],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def said(output: str) -> list[str]:
    """What people are told, without progress and waits."""
    return [
        line.removeprefix("limbeck: ")
        for line in output.splitlines()
        if line.startswith("limbeck: ") and not line.startswith("limbeck: stage: 3/3 steps")
    ]


class Case(NamedTuple):
    """What the attempts do, and what becomes of it."""

    plans: tuple[str, ...]
    exit_code: int
    crashes: tuple[str, ...]
    last: str


KILLED = "killed by SIGKILL (by the system, most often for want of memory)"
CASES = {
    "no crash": Case(("9:",), 0, (), "made 200000"),
    "a kill for want of memory": Case(("2:kill", "9:"), 0, (f"at 2/3 steps: {KILLED}",), "made 200000"),
    "a fault in native code": Case(
        ("0:segfault", "9:"), 0, ("before its first step: killed by SIGSEGV",), "made 200000"
    ),
    "an exit without a word": Case(("1:exit", "9:"), 0, ("at 1/3 steps: exit code 7",), "made 200000"),
    "an exception": Case(
        ("1:raise otherwise", "9:"), 0, ("at 1/3 steps: KeyError: 'otherwise'",), "made 200000"
    ),
    "an engine's error": Case(
        ("1:engine", "9:"), 0, ("at 1/3 steps: the engine broke. See the log",), "made 200000"
    ),
    "the same exception twice at one place": Case(
        ("2:raise",),
        1,
        ("at 2/3 steps: ValueError: nobody thought of N",),
        "error 1: stage: crashed at 2/3 steps again in the same way: "
        f"ValueError: nobody thought of N. The log says more. {AGAIN}",
    ),
    "the same error of an engine twice": Case(
        ("1:engine",),
        5,
        ("at 1/3 steps: the engine broke. See the log",),
        "error 5: stage: crashed at 1/3 steps again in the same way: "
        f"the engine broke. See the log. The log says more. {AGAIN}",
    ),
    "another crash each time": Case(
        ("1:kill", "2:kill", "3:kill", "3:exit"),
        1,
        tuple(f"at {step}/3 steps: {KILLED}" for step in (1, 2, 3)),
        f"error 1: stage: crashed at 3/3 steps after 3 restarts: exit code 7. The log says more. {AGAIN}",
    ),
    "an error that stays": Case(("1:data",), 3, (), "error 3: broken rows in s3://there"),
    "a full disk": Case(("1:full",), 4, (), "error 4: the local disk is full in /data/file"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_may_pass_is_tried_again_and_what_stays_ends_at_once(case: Case, tmp_path: Path) -> None:
    process = start(tmp_path, *case.plans)
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == case.exit_code, output
    lines = [_plain(line) for line in said(output)]
    for number, (line, crash) in enumerate(zip(lines[:-1], case.crashes, strict=True), start=1):
        assert line == f"stage: crashed {crash}; starts again in 0 s ({number} of at most 3 restarts)"
    assert lines[-1].startswith(case.last)
    assert output.count("limbeck: error") == (case.exit_code != 0)
    if any("raise" in plan for plan in case.plans):
        assert "Traceback" in output


def _plain(line: str) -> str:
    """A line without process ids."""
    return re.sub(r"(?<=nobody thought of )\d+", "N", line)


def test_each_wait_is_twice_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMBECK_TEST_RESTART_SECONDS", "0.4")
    started = time.monotonic()
    output, _ = start(tmp_path, "0:kill", "1:kill", "2:kill", "9:").communicate(timeout=PATIENCE_SECONDS)
    assert time.monotonic() - started > 0.4 + 0.8 + 1.6
    assert re.findall(r"starts again in (\d+) s", output) == ["0", "1", "2"]
    assert MADE in output


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives orphans to a grandparent")
@pytest.mark.parametrize("in_memory", [False, True])
def test_a_dead_attempt_leaves_no_process_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, in_memory: bool
) -> None:
    if in_memory:
        monkeypatch.setenv("LIMBECK_TEST_IN_MEMORY", "1")
    output, _ = start(tmp_path, "1:leave", "9:").communicate(timeout=PATIENCE_SECONDS)
    assert MADE in output
    assert not processes.command_line(int((tmp_path / "engine").read_text()))
    scratch = Path((tmp_path / "scratch").read_text())
    assert not scratch.exists()
    assert scratch.is_relative_to("/dev/shm") == in_memory


def pid_of_work(folder: Path) -> int:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not ((folder / "pid").exists() and (folder / "pid").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int((folder / "pid").read_text())


@pytest.mark.parametrize("whole_group", [False, True])
def test_sigterm_lets_the_work_save_what_it_has(tmp_path: Path, *, whole_group: bool) -> None:
    process = start(tmp_path, "1:save")
    pid_of_work(tmp_path)
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, MADE in output) == (0, True)


@pytest.mark.parametrize("whole_group", [False, True])
def test_sigterm_ends_work_that_cannot_save_with_a_code_of_its_own(
    tmp_path: Path, *, whole_group: bool
) -> None:
    process = start(tmp_path, "1:wait")
    pid = pid_of_work(tmp_path)
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 10
    assert said(output) == [f"error 10: stage: stopped by SIGTERM before it could save. {AGAIN}"]
    assert not processes.command_line(pid)


def test_a_second_sigterm_ends_everything_at_once(tmp_path: Path) -> None:
    (tmp_path / "stay").touch()
    process = start(tmp_path, "1:save")
    pid = pid_of_work(tmp_path)
    process.terminate()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (tmp_path / "saved").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.terminate()
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 10
    assert said(output) == ["error 10: stopped at once by SIGTERM. Run it again: it goes on"]
    assert not processes.command_line(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_work_dies_with_a_killed_task(tmp_path: Path) -> None:
    process = start(tmp_path, "1:wait")
    pid = pid_of_work(tmp_path)
    process.kill()
    process.communicate(timeout=PATIENCE_SECONDS)  # the child holds the same pipe
    assert not processes.command_line(pid)
