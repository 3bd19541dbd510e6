"""A server that is killed and started again, a disk that is full, and files that change meanwhile."""

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from limbeck import seaweed
from limbeck.errors import StorageError
from limbeck.storage import Store
from tests.server_crash import kill_and_restart
from tests.storage.conftest import Through
from tests.storage.test_faults import base_of, contents, make_folder


def test_a_transfer_outlives_its_server(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "in", 1, num_small=400)
    with seaweed.serve(tmp_path / "weed") as store:
        store.make_bucket("s3://kept")
        client = Store(deadline_seconds=60)
        again: list[subprocess.Popen[bytes]] = []

        def happen() -> None:
            while len(store.listing("s3://kept")) < 100:
                time.sleep(0.02)
            again.append(kill_and_restart(tmp_path / "weed"))

        thread = threading.Thread(target=happen)
        thread.start()
        try:
            objects = client.write_folder(folder, "s3://kept/model")
            thread.join()
            assert len(again) == 1
            client.read_folder(objects, base_of(objects, "s3://kept/model"), tmp_path / "out")
        finally:
            thread.join()
            for process in again:
                process.kill()
                process.wait()
    assert contents(tmp_path / "out") == contents(folder)


def test_a_full_disk_ends_a_folder_in_parts_and_in_small_files(
    store: Store, work_uri: str, tmp_path: Path
) -> None:
    """In a process of its own whose files may not grow: the kernel says so as on a full disk."""
    objects = store.write_folder(make_folder(tmp_path / "in", 1, num_small=5), work_uri)
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from pydantic import TypeAdapter\n"
        "from limbeck.storage import Store, StoredObject\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9 << 20, 9 << 20))\n"
        "objects = TypeAdapter(list[StoredObject]).validate_json(sys.argv[1])\n"
        "try: Store().read_folder(objects, sys.argv[2], Path(sys.argv[3]))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    listed = f"[{','.join(item.model_dump_json() for item in objects)}]"
    done = subprocess.run(
        [sys.executable, "-c", program, listed, base_of(objects, work_uri), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.match(r"StorageError the local disk is full in s3://.*safetensors: got \d+ MiB", done.stdout)
    assert not list((tmp_path / "out").rglob("*.part"))


@pytest.mark.parametrize("num_bytes", [1000, 24 << 20], ids=["small", "in parts"])
def test_a_file_that_changes_while_it_is_uploaded_is_not_taken_for_the_one_that_was_hashed(
    through: Through, store: Store, work_uri: str, tmp_path: Path, num_bytes: int
) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(num_bytes))
    client, proxy = through()
    proxy.is_down.set()  # after it was hashed, and before it is sent

    def change() -> None:
        proxy.was_missed.wait()  # the first request comes when the file has been hashed
        with path.open("r+b") as file:
            file.write(b"changed")
        proxy.is_down.clear()

    thread = threading.Thread(target=change, daemon=True)
    thread.start()
    with pytest.raises(StorageError, match=r"a file changed while it was uploaded in .*/a\. Upload it again"):
        client.write_file(path, f"{work_uri}/a")
    thread.join()
    assert not store.exists(f"{work_uri}/a")
    assert store.uploads(work_uri) == []


def test_a_long_transfer_says_how_far_it_is(
    through: Through, work_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(2_000_000))
    client, proxy = through()
    item = client.write_file(path, f"{work_uri}/a")
    assert capsys.readouterr().out == ""
    proxy.planned += ["503"] * 6  # pauses that add up to more than five seconds
    client.read_file(item, tmp_path / "b")
    assert re.search(r"limbeck: download: 2/2 MB, [\d.]+/s, done", capsys.readouterr().out)
