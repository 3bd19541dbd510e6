"""Writes under a condition, objects with their tags, deletion of many, and uploads that were left behind."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest

from limbeck.storage import Store, split


def test_only_the_first_writes_a_new_object(store: Store, work_uri: str) -> None:
    tag = store.write_new(f"{work_uri}/lease.json", b"first")
    assert tag
    assert store.write_new(f"{work_uri}/lease.json", b"second") is None
    assert store.write_new(f"{work_uri}/lease.json", b"first") is None
    assert store.read_tagged(f"{work_uri}/lease.json") == (b"first", tag)


def test_an_object_is_replaced_only_by_who_saw_it_last(store: Store, work_uri: str) -> None:
    uri = f"{work_uri}/lease.json"
    first = store.write_new(uri, b"1") or ""
    second = store.replace(uri, b"2", first)
    assert second
    assert second != first
    assert store.replace(uri, b"3", first) is None
    assert store.read_tagged(uri) == (b"2", second)


def test_what_is_gone_is_not_replaced(store: Store, work_uri: str) -> None:
    uri = f"{work_uri}/lease.json"
    tag = store.write_new(uri, b"1") or ""
    store.delete([uri])
    assert store.replace(uri, b"2", tag) is None
    assert store.read_tagged(uri) is None


def test_more_objects_than_one_request_takes_are_deleted(store: Store, work_uri: str) -> None:
    store.write_bytes(f"{work_uri}/kept", b"1")
    gone = [f"{work_uri}/gone/{number}" for number in range(1001)]
    for uri in (gone[0], gone[999], gone[1000]):
        store.write_bytes(uri, b"1")
    store.delete(gone)
    assert list(store.sizes(work_uri)) == [f"{work_uri}/kept"]


@pytest.mark.parametrize("scheme", ["s3", "minio"])
def test_an_unfinished_upload_is_found_and_taken_back(store: Store, work_uri: str, scheme: str) -> None:
    uri = f"{work_uri}/model/part".replace("s3://", f"{scheme}://")
    bucket, key = split(uri)
    boto3.client("s3").create_multipart_upload(Bucket=bucket, Key=key)
    (found,) = store.uploads(uri.rpartition("/")[0])
    assert found.uri == uri
    assert abs(datetime.now(UTC) - found.started) < timedelta(minutes=1)
    assert store.uploads(f"{work_uri}/other") == []
    store.abort(found)
    assert store.uploads(work_uri) == []
    store.abort(found)  # another collector was faster


def test_the_size_of_an_unfinished_upload_is_that_of_its_parts_on_all_pages(
    store: Store, work_uri: str
) -> None:
    client, (bucket, key) = boto3.client("s3"), split(f"{work_uri}/model/part")
    asked = {"Bucket": bucket, "Key": key}
    asked["UploadId"] = client.create_multipart_upload(**asked)["UploadId"]
    (left,) = store.uploads(work_uri)
    assert store.uploaded_bytes(left) == 0
    with ThreadPoolExecutor(8) as pool:  # a page has a thousand
        parts = range(1, 1002)
        list(pool.map(lambda number: client.upload_part(**asked, PartNumber=number, Body=b"four"), parts))
    assert store.uploaded_bytes(left) == 4004
    store.abort(left)
    assert store.uploaded_bytes(left) is None


def test_servers_that_call_a_missing_object_missing_replace_nothing_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """AWS answers 404 where others answer that the condition does not hold."""

    class Missing(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = b"<Error><Code>NoSuchKey</Code></Error>"
            self.send_response(404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Missing)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    try:
        assert Store(deadline_seconds=2).replace("s3://b/lease", b"1", '"tag"') is None
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
