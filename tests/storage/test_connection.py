"""How a client finds its server: the name of the bucket in the host or in the path, and its certificate."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from limbeck.errors import StorageError
from limbeck.storage import Store, StoredObject
from tests.certificate import make_certificate
from tests.fault_proxy import fault_proxy

ROLE = b"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>c</AccessKeyId><SecretAccessKey>d</SecretAccessKey>
<SessionToken>e</SessionToken><Expiration>2100-01-01T00:00:00Z</Expiration></Credentials>
</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""
"""How AWS's token service answers a pod that shows the token of its service account."""


@contextmanager
def web_proxy() -> Iterator[tuple[str, list[str]]]:
    """What HTTP_PROXY names: it hears whole addresses, so no name need resolve; says yes to all."""
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            heard.append(f"{self.command} {self.path}")
            body = {"GET": b"x", "POST": ROLE}.get(self.command, b"")
            self.send_response(404 if self.command == "HEAD" else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_POST = answer

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def given(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """The environment of a client that asks all hosts through its proxy."""
    for name, value in {"NO_PROXY": "", **variables}.items():
        monkeypatch.setenv(name, value)


STYLES = {
    "path": ("", "http://store.example/bucket"),
    "virtual": ("[default]\ns3 =\n  addressing_style = virtual\n", "http://bucket.store.example"),
}


@pytest.mark.parametrize(("settings", "base"), STYLES.values(), ids=STYLES)
def test_the_bucket_is_named_as_awss_settings_say(
    settings: str, base: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(settings)
    (tmp_path / "file").write_bytes(b"x")
    with web_proxy() as (address, heard):
        given(
            monkeypatch,
            HTTP_PROXY=address,
            AWS_CONFIG_FILE=str(tmp_path / "config"),
            AWS_ENDPOINT_URL="http://store.example",
            AWS_ACCESS_KEY_ID="a",
            AWS_SECRET_ACCESS_KEY="b",
        )
        client = Store(deadline_seconds=2)
        client.write_bytes("s3://bucket/some key", b"1")  # boto3's way
        client.write_file(tmp_path / "file", "s3://bucket/ä+b~")  # the short way, after asking if it is there
        client.read_file(StoredObject(uri="s3://bucket/down", bytes=1, sha256=""), tmp_path / "down")
    assert heard == [
        f"PUT {base}/some%20key",
        f"HEAD {base}/%C3%A4%2Bb~",
        f"PUT {base}/%C3%A4%2Bb~",
        f"GET {base}/down",
    ]


def test_a_pods_service_account_may_be_a_role_of_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of the pod")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with web_proxy() as (address, heard):
        given(
            monkeypatch,
            HTTP_PROXY=address,
            AWS_CONFIG_FILE=str(tmp_path / "none"),
            AWS_ENDPOINT_URL_S3="http://store.example",
            AWS_ENDPOINT_URL_STS="http://sts.example",
            AWS_ROLE_ARN="arn:aws:iam::123456789012:role/limbeck",
            AWS_WEB_IDENTITY_TOKEN_FILE=str(tmp_path / "token"),
        )
        Store(deadline_seconds=2).write_bytes("s3://bucket/key", b"1")
    assert heard == ["POST http://sts.example/", "PUT http://store.example/bucket/key"]


def test_without_an_endpoint_the_bucket_is_looked_for_at_aws(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    with web_proxy() as (address, heard):
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        monkeypatch.setenv("AWS_REGION", "eu-central-1")
        monkeypatch.setenv("HTTPS_PROXY", address)
        # The proxy knows no CONNECT, which is all it hears of https.
        with pytest.raises(StorageError, match=r"in s3://bucket/down: .*AWS S3"):
            Store(deadline_seconds=0).read_file(
                StoredObject(uri="s3://bucket/down", bytes=1, sha256=""), tmp_path / "down"
            )
    assert heard == []


def test_a_certificate_of_ones_own_authority_is_taken_from_a_file(
    store: Store, work_uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    (tmp_path / "large").write_bytes(bytes(range(256)) * 40_000)
    with fault_proxy(str(store.endpoint), tls=context) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with pytest.raises(StorageError, match=r"a transfer failed in s3://.*Set AWS_CA_BUNDLE") as caught:
            Store(deadline_seconds=30).write_bytes(f"{work_uri}/a", b"1")
        assert "tries" not in str(caught.value)  # it will not pass by waiting
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority))
        client = Store(deadline_seconds=30)
        client.write_bytes(f"{work_uri}/a", b"1")
        item = client.write_file(tmp_path / "large", f"{work_uri}/large")
        client.read_file(item, tmp_path / "back")
        assert client.read_bytes(f"{work_uri}/a") == b"1"
    assert (tmp_path / "back").read_bytes() == (tmp_path / "large").read_bytes()
