"""The embedded S3 server: it keeps data, not credentials, and never outlives its run."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from limbeck import processes, seaweed
from limbeck.errors import StorageError
from limbeck.storage import Store

SERVE_FOREVER = """
import sys, time
from pathlib import Path
from limbeck import seaweed
with seaweed.serve(Path(sys.argv[1])):
    print("up", flush=True)
    time.sleep(60)
"""


def is_gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while processes.command_line(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not processes.command_line(pid)


def test_data_persist_while_old_credentials_do_not(tmp_path: Path) -> None:
    with seaweed.serve(tmp_path) as store:
        store.make_bucket("s3://kept")
        store.write_bytes("s3://kept/a", b"content")
        old = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    assert not (tmp_path / "weed.pid").exists()

    with seaweed.serve(tmp_path) as store, pytest.MonkeyPatch.context() as patch:
        assert store.read_bytes("s3://kept/a") == b"content"
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{store.endpoint}/kept/a")  # noqa: S310 - loopback
        for name, value in old.items():
            patch.setenv(name, value)
        with pytest.raises(StorageError, match="refuses these credentials"):
            Store().exists("s3://kept/a")


def test_all_that_was_acknowledged_outlasts_an_end_right_after_it(tmp_path: Path) -> None:
    written = {f"s3://kept/{number}": os.urandom(10 ** (number % 6)) for number in range(60)}
    with seaweed.serve(tmp_path) as store:
        store.make_bucket("s3://kept")
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(store.write_bytes, written, written.values()))

    with seaweed.serve(tmp_path) as store:
        assert {uri: store.read_bytes(uri) for uri in written} == written


def test_an_exception_in_the_block_stops_the_server(tmp_path: Path) -> None:
    pids: list[int] = []

    def interrupted_run() -> None:
        with seaweed.serve(tmp_path):
            pids.append(int((tmp_path / "weed.pid").read_text()))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_run()
    assert is_gone(pids[0])


def test_the_aws_settings_of_the_user_come_back_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of another account")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
    before = dict(os.environ)
    with seaweed.serve(tmp_path):
        assert "AWS_SESSION_TOKEN" not in os.environ
        assert os.environ["AWS_ACCESS_KEY_ID"] != "mine"
    assert dict(os.environ) == before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a child when its parent dies")
def test_the_server_dies_with_a_killed_run(tmp_path: Path) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", SERVE_FOREVER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "up\n"
    pid = int((tmp_path / "weed.pid").read_text())

    run.kill()
    run.wait()

    assert is_gone(pid)


def test_a_server_that_outlived_its_run_is_stopped(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    stale = subprocess.Popen(
        [sys.executable, "-c", "print(1, flush=True); import time; time.sleep(60)", f"-dir={data}"],
        stdout=subprocess.PIPE,
    )
    assert stale.stdout is not None
    stale.stdout.readline()
    (tmp_path / "weed.pid").write_text(str(stale.pid))

    with seaweed.serve(tmp_path) as store:
        store.make_bucket("s3://works")

    assert stale.wait(5) == -signal.SIGKILL


def test_a_process_that_only_took_the_stale_pid_is_left_alone(tmp_path: Path) -> None:
    innocent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (tmp_path / "weed.pid").write_text(str(innocent.pid))

    with seaweed.serve(tmp_path):
        pass

    assert innocent.poll() is None
    innocent.kill()
    innocent.wait()


def test_two_runs_do_not_share_a_data_folder(tmp_path: Path) -> None:
    with (
        seaweed.serve(tmp_path),
        pytest.raises(StorageError, match="another run uses this data folder"),
        seaweed.serve(tmp_path),
    ):
        pass


def test_a_server_that_cannot_start_says_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "filerldb2").write_text("a file where a folder must be")
    with pytest.raises(StorageError, match="did not come up") as caught, seaweed.serve(tmp_path):
        pass
    assert "filerldb2" in str(caught.value)
    assert not (tmp_path / "weed.pid").exists()


def test_a_port_is_free_only_if_its_grpc_port_is() -> None:
    port = seaweed.free_ports(1)[0]
    candidates = range(port, port + 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port + seaweed.GRPC_OFFSET))
        with pytest.raises(StorageError, match="no free loopback ports"):
            seaweed.free_ports(1, candidates)
    assert seaweed.free_ports(1, candidates) == [port]


def test_nothing_is_left_in_tmp(tmp_path: Path) -> None:
    with seaweed.serve(tmp_path) as store:
        port = str(store.endpoint).rpartition(":")[2]
        assert list(Path("/tmp").glob(f"seaweedfs-*-{port}.sock"))
    assert not list(Path("/tmp").glob(f"seaweedfs-*-{port}.sock"))
