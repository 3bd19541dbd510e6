"""No secret in an error message; and what looks for secrets in a whole run finds planted ones."""

import base64
import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from limbeck import processes, seaweed
from limbeck.errors import LimbeckError, StorageError
from limbeck.records import Prompt
from limbeck.rows import write_rows
from limbeck.storage import Store
from tests.security.secrets import found_in_folder, found_in_store, found_in_text

SECRET = 'wJalr/XUtnFEMI+K7"MDENG&bPx'
CREDENTIALS = {"AWS_SECRET_ACCESS_KEY": SECRET}
RAW = SECRET.encode()


def parquet(value: str, compression: str) -> bytes:
    """A file whose value is compressed in a page, without statistics that would repeat it."""
    buffer = io.BytesIO()
    table = pa.table({"n": list(range(100)), "text": ["a" * 40] * 99 + [value]})
    pq.write_table(table, buffer, compression=compression, write_statistics=False)
    return buffer.getvalue()


def zipped(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", b"a" * 500 + data + b"a" * 500)
    return buffer.getvalue()


def tarred(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        header = tarfile.TarInfo("inner.gz")
        header.size = len(data)
        tar.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


PLANTED: dict[str, tuple[bytes, str]] = {
    "as it is": (b"log\n" + RAW, "it is"),
    "JSON": (json.dumps({"key": SECRET}).encode(), "JSON"),
    "JSON with escaped slashes": (json.dumps(SECRET).replace("/", "\\/").encode(), "JSON"),
    "URL": (f"http://x/?k={quote(SECRET, safe='')}".encode(), "URL"),
    "HTML": (b"<p>wJalr/XUtnFEMI+K7&quot;MDENG&amp;bPx</p>", "HTML"),
    "hex": (RAW.hex().encode(), "hex"),
    "hex, upper case": (RAW.hex().upper().encode(), "hex"),
    "base64": (base64.b64encode(RAW), "base64"),
    "base64 after one byte": (base64.b64encode(b"x" + RAW + b"tail"), "base64"),
    "base64 after two bytes": (base64.b64encode(b"id" + RAW + b"t"), "base64"),
    "base64 for URLs": (base64.urlsafe_b64encode(b"user:" + RAW), "base64"),
    "gzip": (gzip.compress(b"a" * 99 + RAW), "it is"),
    "bzip2": (bz2.compress(RAW), "it is"),
    "xz": (lzma.compress(RAW), "it is"),
    "zstd": (pa.compress(b"a" * 999 + RAW, codec="zstd", asbytes=True), "it is"),
    "zip, as torch writes": (zipped(RAW), "it is"),
    "gzip within tar": (tarred(gzip.compress(RAW)), "it is"),
    "Parquet with zstd": (parquet(f"text {SECRET}", "zstd"), "JSON"),
    "Parquet with snappy": (parquet(SECRET, "snappy"), "JSON"),
    "base64 within Parquet": (parquet(base64.b64encode(RAW).decode(), "zstd"), "base64"),
}


@pytest.mark.parametrize(("content", "form"), PLANTED.values(), ids=PLANTED)
def test_a_planted_secret_is_found_in_a_file(tmp_path: Path, content: bytes, form: str) -> None:
    (tmp_path / "deep" / ".hidden").mkdir(parents=True)
    (tmp_path / "deep" / ".hidden" / "file").write_bytes(content)
    found = found_in_folder(CREDENTIALS, tmp_path)
    assert any(
        line.startswith(f"AWS_SECRET_ACCESS_KEY as {form} in {tmp_path}/deep/.hidden") for line in found
    )
    assert SECRET not in "".join(found)


def test_a_planted_secret_is_found_in_names_and_links(tmp_path: Path) -> None:
    credentials = {"KEY": "0123456789abcdef"}
    (tmp_path / "log-0123456789abcdef.txt").touch()
    (tmp_path / "link").symlink_to("/nowhere/0123456789abcdef")
    assert len(found_in_folder(credentials, tmp_path)) == 2


def test_a_planted_secret_is_found_in_the_store(store: Store, work_uri: str) -> None:
    credentials = {"KEY": "0123456789abcdef"}
    write_rows(store, f"{work_uri}/rows", [Prompt(prompt_id="1", prompt="ask 0123456789abcdef"), *NOISE])
    store.write_bytes(f"{work_uri}/0123456789abcdef/manifest.json", b"{}")
    found = found_in_store(credentials, store, work_uri)
    assert sum("(rows)" in line for line in found) == 1
    assert sum("the key of" in line for line in found) == 1
    assert found_in_store({"KEY": "fedcba9876543210"}, store, work_uri) == []


NOISE = [Prompt(prompt_id=f"{n}", prompt="ask " * 20) for n in range(200)]


def test_a_planted_secret_is_found_in_a_text() -> None:
    assert found_in_text(CREDENTIALS, f"x {SECRET} y", "stdout") == [
        "AWS_SECRET_ACCESS_KEY as it is in stdout"
    ]
    assert found_in_text(CREDENTIALS, "nothing", "stdout") == []


def test_a_secret_too_short_to_be_told_from_chance_is_refused() -> None:
    with pytest.raises(ValueError, match="too short"):
        found_in_text({"KEY": "abc"}, "text", "stdout")


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Store]:
    """Make a client from variables that soon gives up; others stay, so that an embedded server is reached."""

    def make(**variables: str) -> Store:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return Store(deadline_seconds=1)

    return make


def message_of(action: Callable[[], object]) -> str:
    with pytest.raises(LimbeckError) as caught:
        action()
    return str(caught.value)


PASSWORD = "hunter2-hunter2"


@pytest.mark.parametrize(
    "variables",
    [
        {"AWS_ENDPOINT_URL": f"http://user:{PASSWORD}@127.0.0.1:9"},
        {"AWS_ENDPOINT_URL": f"http://user:pa@{PASSWORD}@127.0.0.1:9"},
        {"AWS_ENDPOINT_URL": f"http://user:pa/{PASSWORD}@127.0.0.1:9"},
        {"AWS_ENDPOINT_URL": f"user:{PASSWORD}@127.0.0.1:9"},
        {"AWS_ENDPOINT_URL": f"http://user:{PASSWORD}@[::1"},
        {"AWS_ENDPOINT_URL": "http://s3.test", "HTTP_PROXY": f"http://user:{PASSWORD}@127.0.0.1:9"},
        {"AWS_ENDPOINT_URL": "https://s3.test", "HTTPS_PROXY": f"http://user:{PASSWORD}@127.0.0.1:9"},
    ],
    ids=[
        "endpoint",
        "a password with an at sign",
        "a password with a slash",
        "endpoint without scheme",
        "a broken address",
        "proxy",
        "proxy of https",
    ],
)
def test_an_unreachable_address_with_a_password_is_told_without_it(
    aws: Callable[..., Store], variables: dict[str, str]
) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE12345", "AWS_SECRET_ACCESS_KEY": SECRET}
    message = message_of(lambda: aws(**keys, **variables).read_bytes("s3://bucket/key"))
    assert "AWS_" in message or "127.0.0.1:9" in message or "s3.test" in message, message
    for secret in (PASSWORD, "hunter2", SECRET, keys["AWS_ACCESS_KEY_ID"]):
        assert secret not in message


def test_a_refused_key_is_told_without_it(aws: Callable[..., Store], store: Store, work_uri: str) -> None:
    assert store.endpoint
    client = aws(AWS_ACCESS_KEY_ID="AKIDEXAMPLE12345", AWS_SECRET_ACCESS_KEY=SECRET)
    message = message_of(lambda: client.write_bytes(f"{work_uri}/x", b"1"))
    assert "refuses these credentials" in message
    assert not found_in_text({"secret": SECRET, "id": "AKIDEXAMPLE12345"}, message, "message")


@pytest.fixture
def talkative_server() -> Iterator[str]:
    """A server that answers by repeating the request's headers, as a debugging proxy would."""

    class Talkative(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            repeated = str(self.headers).replace("<", "").replace("&", "")
            body = f"<Error><Code>Teapot</Code><Message>{repeated}</Message></Error>".encode()
            self.send_response(404 if self.command == "HEAD" and "key" in self.path else 418)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Talkative)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_what_a_server_repeats_of_a_request_is_not_told(
    aws: Callable[..., Store], talkative_server: str, tmp_path: Path
) -> None:
    client = aws(
        AWS_ENDPOINT_URL=talkative_server, AWS_ACCESS_KEY_ID="AKIDEXAMPLE12345", AWS_SECRET_ACCESS_KEY=SECRET
    )
    (tmp_path / "file").write_bytes(bytes(100))
    actions: list[Callable[[], object]] = [
        lambda: client.read_bytes("s3://bucket/key"),
        lambda: client.sizes("s3://bucket/prefix"),
        lambda: client.write_bytes("s3://bucket/key", b"1"),
        lambda: client.write_file(tmp_path / "file", "s3://bucket/key"),
        lambda: client.make_bucket("s3://bucket"),
    ]
    for action in actions:
        message = message_of(action)
        assert "418" in message, message
        assert not found_in_text({"secret": SECRET, "id": "AKIDEXAMPLE12345"}, message, "message")


def test_the_embedded_server_keeps_its_key_in_memory_alone(tmp_path: Path) -> None:
    with seaweed.serve(tmp_path) as store:
        credentials = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        store.make_bucket("s3://kept")
        store.write_bytes("s3://kept/a", b"1")
        command = " ".join(processes.command_line(int((tmp_path / "weed.pid").read_text())))
        assert "-dir=" in command
        assert found_in_text(credentials, command, "the command line") == []
        assert found_in_folder(credentials, tmp_path) == []
    assert found_in_folder(credentials, tmp_path) == []
    assert (tmp_path / "seaweed.log").stat().st_size > 0


@pytest.mark.parametrize(
    "uri", [f"s3://AKIDEXAMPLE12345:{PASSWORD}@bucket/key", f"http://u:{PASSWORD}@host/x"]
)
def test_an_address_with_a_key_in_it_is_refused_without_repeating_it(store: Store, uri: str) -> None:
    with pytest.raises(StorageError, match="not an object-store address") as caught:
        store.read_bytes(uri)
    assert PASSWORD not in str(caught.value)
    assert "AKIDEXAMPLE" not in str(caught.value)
