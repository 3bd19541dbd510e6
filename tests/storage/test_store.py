"""The object store, against a real server."""

import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from limbeck.errors import StorageError
from limbeck.storage import Store, StoredObject, split
from tests.storage.conftest import Against


def test_a_file_comes_back_as_it_went(store: Store, work_uri: str, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(range(256)) * 100_000)  # several parts of a multipart upload
    item = store.write_file(path, f"{work_uri}/a.bin", rows=7)
    assert store.stored(item.uri) == item
    assert (item.bytes, item.rows) == (25_600_000, 7)
    assert store.read_file(item, tmp_path / "b" / "b.bin").read_bytes() == path.read_bytes()


def test_minio_addresses_are_the_same_store(store: Store, work_uri: str) -> None:
    store.write_bytes(f"{work_uri}/x", b"1")
    minio = work_uri.replace("s3://", "minio://")
    assert store.read_bytes(f"{minio}/x") == b"1"
    assert list(store.sizes(minio)) == [f"{minio}/x"]


def test_a_corrupt_object_is_never_taken_for_good(store: Store, work_uri: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"right")
    item = store.write_file(tmp_path / "a", f"{work_uri}/a")
    store.write_bytes(item.uri, b"wrong")
    with pytest.raises(StorageError, match=r"corrupt object in .*/a: expected sha256"):
        store.read_file(item, tmp_path / "b")
    assert not list(tmp_path.glob("b*"))


def test_a_folder_lies_under_a_hash_of_its_content(store: Store, work_uri: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_text("1")
    (folder / "sub" / "b").write_text("2")
    first = store.write_folder(folder, work_uri)
    assert store.write_folder(folder, work_uri) == first
    (folder / "a").write_text("3")
    second = store.write_folder(folder, work_uri)
    assert not {item.uri for item in first} & {item.uri for item in second}
    base = first[0].uri.rsplit("/", 1)[0]
    store.read_folder(first, base, tmp_path / "out")
    assert (tmp_path / "out" / "sub" / "b").read_text() == "2"


def test_a_forged_name_cannot_leave_the_folder(store: Store, work_uri: str, tmp_path: Path) -> None:
    forged = StoredObject(uri=f"{work_uri}/x/../../../evil", bytes=1, sha256="")
    with pytest.raises(StorageError, match="outside its folder"):
        store.read_folder([forged], f"{work_uri}/x", tmp_path / "out")


def test_a_missing_object_is_one_line(store: Store, work_uri: str) -> None:
    assert not store.exists(f"{work_uri}/nothing")
    with pytest.raises(StorageError, match=r"no such object in s3://.*/nothing\. Check the URI"):
        store.read_bytes(f"{work_uri}/nothing")


def test_a_missing_bucket_is_named(store: Store) -> None:
    with pytest.raises(StorageError, match=r"no such bucket in s3://absent-bucket"):
        store.sizes("s3://absent-bucket/x")


def test_wrong_credentials_are_named(store: Store, work_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match=r"refuses these credentials.*AWS_SECRET_ACCESS_KEY"):
        Store().write_bytes(f"{work_uri}/x", b"1")


def test_an_unreachable_endpoint_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with pytest.raises(
        StorageError, match=r"does not answer in s3://b/x: expected an S3 server at http://127.0.0.1:9"
    ):
        Store(deadline_seconds=1).read_bytes("s3://b/x")


@pytest.mark.parametrize("uri", ["/local/path", "http://host/x", "s3:///x", "relative"])
def test_other_addresses_are_refused(uri: str) -> None:
    with pytest.raises(StorageError, match="not an object-store address"):
        split(uri)


def test_a_full_disk_is_one_line_and_nothing_half_written_stays(
    store: Store, work_uri: str, tmp_path: Path
) -> None:
    """In a process of its own whose files may not grow: the kernel says so as on a full disk."""
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    item = store.write_file(tmp_path / "a", f"{work_uri}/a")
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from limbeck.storage import Store, StoredObject\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: Store().read_file(StoredObject.model_validate_json(sys.argv[1]), Path(sys.argv[2]))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    out = tmp_path / "out" / "b"
    done = subprocess.run(
        [sys.executable, "-c", program, item.model_dump_json(), str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.match(
        r"StorageError the local disk is full in s3://.*/a: got \d+ MiB free .*finished work", done.stdout
    )
    assert not list(out.parent.iterdir())


def test_a_download_that_is_cut_each_time_is_one_line(against: Against, tmp_path: Path) -> None:
    class Cut(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.send_header("ETag", '"x"')
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(b"half")

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    item = StoredObject(uri="s3://b/x", bytes=100, sha256="0" * 64)
    with pytest.raises(StorageError, match=r"a transfer failed in s3://b/x: got .*retry"):
        against(Cut).read_file(item, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_a_server_without_room_is_one_line(
    against: Against,
) -> None:
    class Full(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = b"<Error><Code>XMinioStorageFull</Code><Message>no space</Message></Error>"
            self.send_response(507)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    with pytest.raises(StorageError, match=r"XMinioStorageFull \(507\).*server's disk is full"):
        against(Full).write_bytes("s3://b/x", b"1")
