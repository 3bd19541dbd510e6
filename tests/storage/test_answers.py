"""What is not what was asked for is never taken for it, and every body goes with what servers check it by."""

import contextlib
import hashlib
import os
import threading
from base64 import b64encode
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import boto3
import pytest

from limbeck.errors import StorageError
from limbeck.storage import ObjectError, Store, StoredObject, split
from tests.fault_proxy import Answer, Request
from tests.storage.conftest import Against, Through

MIB = 1 << 20


def test_every_body_goes_with_its_sha256_in_both_places_where_servers_look(
    through: Through, work_uri: str, tmp_path: Path
) -> None:
    client, proxy = through()
    sent: list[Request] = []

    def pass_on(request: Request, ask: Callable[[], Answer]) -> Answer:
        if request.method == "PUT":
            sent.append(request)
        return ask()

    proxy.pass_on = pass_on
    client.write_bytes(f"{work_uri}/bytes", b"a")
    client.write_new(f"{work_uri}/new", b"b")
    for name, content in {"small": b"c", "in parts": os.urandom(9 * MIB)}.items():
        (tmp_path / name).write_bytes(content)
        client.write_file(tmp_path / name, f"{work_uri}/{name}")
    assert len(sent) == 5
    for request in sent:
        digest = hashlib.sha256(request.body)
        assert request.headers["x-amz-content-sha256"] == digest.hexdigest()
        assert request.headers["x-amz-checksum-sha256"] == b64encode(digest.digest()).decode()


LENGTHS = {
    "fewer": (b"x" * 50, True),
    "more": (b"x" * 200, True),
    "fewer, without a word": (b"x" * 50, False),
    "more, without a word": (b"x" * 200, False),
}


@pytest.mark.parametrize(("content", "announced"), LENGTHS.values(), ids=LENGTHS)
def test_another_number_of_bytes_than_a_listing_said_is_not_the_object(
    against: Against, tmp_path: Path, content: bytes, *, announced: bool
) -> None:
    """Of what others wrote no sha256 is known: nothing else tells."""

    class Serves(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            if announced:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    item = StoredObject(uri="s3://b/x", bytes=100, sha256="")
    with pytest.raises(StorageError, match=r"corrupt object in s3://b/x: expected 100 bytes, got"):
        against(Serves).read_file(item, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_parts_of_two_contents_that_had_one_name_are_not_joined(
    through: Through, work_uri: str, tmp_path: Path
) -> None:
    """It is replaced between two of its parts, by another tool that leaves no sha256."""
    client, proxy = through()
    bucket, key = split(f"{work_uri}/model")
    direct, lock = boto3.client("s3", endpoint_url=f"http://{proxy.upstream}"), threading.Lock()
    direct.put_object(Bucket=bucket, Key=key, Body=bytes(20 * MIB))
    contents = [b"\1" * (20 * MIB)]

    def pass_on(request: Request, ask: Callable[[], Answer]) -> Answer:
        with lock:
            answer = ask()
            if contents:
                direct.put_object(Bucket=bucket, Key=key, Body=contents.pop())
            return answer

    proxy.pass_on = pass_on
    item = StoredObject(uri=f"{work_uri}/model", bytes=20 * MIB, sha256="")
    # If the part of the old content is the last to arrive, it is asked for again and all are of the new one.
    with contextlib.suppress(ObjectError):
        client.read_file(item, tmp_path / "model")
    assert {path.read_bytes() for path in tmp_path.iterdir()} <= {b"\1" * (20 * MIB)}


def test_a_deletion_that_the_server_refuses_within_its_answer_is_an_error(
    through: Through, work_uri: str
) -> None:
    client, proxy = through()
    client.write_bytes(f"{work_uri}/a", b"1")
    said = b"<DeleteResult><Error><Key>a</Key><Code>AccessDenied</Code></Error></DeleteResult>"
    proxy.pass_on = lambda *_: Answer(200, {"Content-Length": str(len(said))}, said)
    with pytest.raises(StorageError, match="refuses these credentials"):
        client.delete([f"{work_uri}/a"])


def test_a_listing_is_read_to_its_last_page(against: Against) -> None:
    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            number = 2 if "continuation-token=next" in self.path else 1
            more = "<IsTruncated>true</IsTruncated><NextContinuationToken>next</NextContinuationToken>"
            body = (
                f"<ListBucketResult>{more if number == 1 else ''}<Contents><Key>p/{number}</Key>"
                "<Size>1</Size><LastModified>2026-01-01T00:00:00Z</LastModified></Contents></ListBucketResult>"
            ).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    assert list(against(Pages).sizes("s3://b/p")) == ["s3://b/p/1", "s3://b/p/2"]


def test_what_is_there_whole_is_not_sent_again_and_what_is_not_is(
    through: Through, store: Store, work_uri: str, tmp_path: Path
) -> None:
    client, proxy = through()
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text(name)
    objects = client.write_folder(folder, work_uri)
    alone = client.write_file(folder / "a", f"{work_uri}/alone")
    assert proxy.seen["PUT"] == 3
    assert client.write_folder(folder, work_uri) == objects
    assert client.write_file(folder / "a", alone.uri) == alone
    assert proxy.seen["PUT"] == 3
    for item in (objects[1], alone):
        store.write_bytes(item.uri, b"other")
    client.write_folder(folder, work_uri)
    client.write_file(folder / "a", alone.uri)
    assert proxy.seen["PUT"] == 5
    assert [store.read_bytes(item.uri) for item in (*objects, alone)] == [b"a", b"b", b"a"]
