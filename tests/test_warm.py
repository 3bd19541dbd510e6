"""Processes forked from one that has imported: each is as if it had been started by itself."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from limbeck import processes, warm_server
from limbeck.warm import SERVED, Started

PROGRAM = "tests.warm_program"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where a server is at work; it has imported little."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        (Path(scratch) / "log").open("w") as log,
        warm_server.serving(Path(scratch), log, modules=["json"]),
    ):
        yield Path(scratch)


def start(folder: Path, *arguments: str, streams: tuple[int, int, int] = (0, 1, 2)) -> Started:
    address = str(folder / warm_server.SOCKET)
    return Started(address, [PROGRAM, *arguments], env=dict(os.environ), streams=streams)


def text(path: Path) -> str:
    """Wait until a program has written it."""
    deadline = time.monotonic() + 20
    while not (path.exists() and path.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return path.read_text()


@pytest.mark.parametrize("leads", [False, True], ids=["in the run's group", "in its own"])
def test_a_fork_has_streams_variables_folder_arguments_and_exit_code_of_its_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leads: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").write_text("an input")
    with (tmp_path / "in").open() as given, (tmp_path / "out").open("w") as out:
        streams = (given.fileno(), out.fileno(), out.fileno())
        variables = {"ONLY": "this", "PYTHONPATH": ""}
        told = Started(
            str(folder / warm_server.SOCKET),
            [PROGRAM, "tell", "é"],
            env=variables,
            streams=streams,
            process_group=leads,
        )
        assert told.wait() == told.poll() == 7
    second, first = sorted((tmp_path / "out").read_text().splitlines())
    found = json.loads(first)
    assert second == "and of errors"
    assert found["arguments"] == ["tell", "é"]
    assert (found["input"], found["folder"], found["variables"]) == ("an input", str(tmp_path), variables)
    assert found["leads"] == leads
    assert leads or found["group"] == os.getpgrp()


@pytest.mark.parametrize(("behaviour", "code"), [("kill", -signal.SIGKILL), ("raise", 1)])
def test_a_fork_that_dies_tells_how(folder: Path, behaviour: str, code: int) -> None:
    assert start(folder, behaviour).wait() == code


def test_a_fork_is_stopped_when_who_asked_for_it_is_killed(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from limbeck.warm import Started; "
        f"Started({str(folder / warm_server.SOCKET)!r}, [{PROGRAM!r}, 'wait', sys.argv[1]], env={{}}).wait()"
    )
    asker = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "state")])
    assert text(tmp_path / "state").isdecimal()
    asker.kill()
    asker.wait()
    deadline = time.monotonic() + 10
    while (tmp_path / "state").read_text() != "stopped" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (tmp_path / "state").read_text() == "stopped"


def test_one_that_waits_for_a_fork_can_look_in_between(folder: Path, tmp_path: Path) -> None:
    waiting = start(folder, "wait", str(tmp_path / "state"))
    assert text(tmp_path / "state") == str(waiting.pid)
    assert waiting.poll() is None
    with pytest.raises(TimeoutError):
        waiting.wait(0.05)
    os.kill(waiting.pid, signal.SIGTERM)
    assert waiting.wait() == 10


def test_a_stopped_server_ends_after_its_last_fork(tmp_path: Path) -> None:
    """Whoever waits for it so waits for a training that saves."""
    with (tmp_path / "log").open("w") as log, warm_server.serving(tmp_path, log, modules=[]):
        waiting = start(tmp_path, "wait", str(tmp_path / "state"))
        text(tmp_path / "state")
        server = int(Path(f"/proc/{waiting.pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(server, signal.SIGTERM)
        time.sleep(0.3)
        assert waiting.poll() is None
        os.kill(waiting.pid, signal.SIGTERM)
        assert waiting.wait() == 10
        deadline = time.monotonic() + 5
        while processes.command_line(server) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not processes.command_line(server)


def test_without_a_server_the_stand_in_starts_python(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log, warm_server.serving(tmp_path, log, modules=[]) as program:
        pass
    for arguments in (["-m", SERVED, "--help"], ["-c", "print('usage: of its own')"]):
        made = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=True)
        assert "usage: " in made.stdout


def test_a_server_that_has_loaded_vllm_has_one_thread(folder: Path, tmp_path: Path) -> None:
    """A fork of several threads may hang: what others hold at that moment is never let go of."""
    with (tmp_path / "out").open("w") as out, Path(os.devnull).open() as nothing:
        told = Started(
            str(folder / warm_server.SOCKET),
            [PROGRAM, "tell"],
            env=dict(os.environ),
            streams=(nothing.fileno(), out.fileno(), out.fileno()),
            imports=("limbeck.sampler:load_worker",),
        )
        assert told.wait() == 7
    found = json.loads(max((tmp_path / "out").read_text().splitlines()))
    assert (found["vllm"], found["server_threads"]) == (True, 1)
