"""The client of the API: patient with a server that is away, one run for one request, no identity shown."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from limbeck.compiled import Compiled, load
from limbeck.errors import ClusterError, ConfigError
from limbeck.kubeflow import connect
from limbeck.submit import wait
from tests.kfp_stub import Fault, Stub, serve
from tests.small_pipeline import SMALL
from tests.submitting import QUICK, RUN, TOKEN, client, serve_alone, start_small


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    yield from serve_alone(monkeypatch)


@pytest.fixture
def small() -> Compiled:
    return load(SMALL)


def test_an_experiment_is_made_once_and_in_its_namespace(stub: Stub) -> None:
    kubeflow = client(stub)
    assert kubeflow.experiment("nightly", "team-a") == kubeflow.experiment("nightly", "team-a")
    assert [request.body for request in stub.asked("POST", "/experiments")] == [
        {"display_name": "nightly", "namespace": "team-a"}
    ]
    assert {request.query["namespace"] for request in stub.asked("GET", "/experiments")} == {"team-a"}


def test_a_server_that_is_not_there_is_one_line(small: Compiled) -> None:
    with serve() as stopped:
        pass
    with pytest.raises(ClusterError, match=r"the API server is away, or fails in .*: got NewConnectionError"):
        start_small(client(stopped))


def test_a_server_whose_certificate_is_no_good_is_told_from_one_that_is_away(stub: Stub) -> None:
    stub.url = stub.url.replace("http:", "https:")
    with pytest.raises(ClusterError, match=r"the API server is away, or fails in https://.*: got SSLError"):
        start_small(client(stub))


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST", "/runs", done_first=True),
        Fault("POST", "/runs", status=504, done_first=True),
        Fault("POST", "/runs"),
        Fault("POST", "/runs", status=500),
    ],
    ids=["an answer lost", "a gateway without patience", "a request lost", "a server that fails once"],
)
def test_a_run_is_started_once_whatever_gets_lost(stub: Stub, fault: Fault) -> None:
    kubeflow = client(stub)
    assert start_small(kubeflow) == "run-1"
    stub.faults = [fault]
    assert start_small(kubeflow) == "run-2"
    assert len(stub.runs) == 2


def test_a_run_of_the_same_name_that_another_job_has_just_started_is_not_taken_for_ours(stub: Stub) -> None:
    kubeflow = client(stub)
    assert start_small(kubeflow) == "run-1"
    stub.faults = [Fault("GET", "/runs", status=200, content=b"{}")]  # asked a moment before that one
    assert start_small(kubeflow) == "run-2"


def test_a_refusal_is_not_repeated_and_says_what_the_server_says(stub: Stub) -> None:
    stub.faults = [Fault("POST", "/runs", status=400, times=9, content=b'{"message": "no such\\n thing"}')]
    with pytest.raises(ClusterError, match=r"the API server refuses in .*: got HTTP 400 no such thing"):
        start_small(client(stub))
    assert len(stub.asked("POST", "/runs")) == 1


def test_a_token_file_is_read_for_each_request(stub: Stub, small: Compiled, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    stub.token = TOKEN
    kubeflow = client(stub, token_file=file)
    run_id = start_small(kubeflow)
    stub.token = "renewed"
    file.write_text("renewed\n")
    wait(kubeflow, run_id, small)
    assert {request.headers["authorization"] for request in stub.asked("GET", RUN)} == {"Bearer renewed"}


def test_a_pod_uses_its_service_account(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    stub.token = TOKEN
    start_small(client(stub, in_cluster=True))
    assert connect(in_cluster=True).host == "http://ml-pipeline.kubeflow.svc.cluster.local:8888"


def test_a_token_of_the_environment_is_the_one_that_kfp_uses(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_EXISTING_TOKEN", TOKEN)
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", stub.url)
    stub.token = TOKEN
    start_small(connect(patience=QUICK))


def test_a_cookie_file_takes_the_place_of_a_token(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_EXISTING_TOKEN", TOKEN)
    (tmp_path / "cookie").write_text("authservice_session=abc\n")
    stub.cookie = "authservice_session=abc"
    start_small(client(stub, cookie_file=tmp_path / "cookie"))
    assert all("authorization" not in request.headers for request in stub.requests)


LOGIN_PAGE = {"status": 200, "content": b"<html>log in</html>", "headers": {"Content-Type": "text/html"}}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (None, "HTTP 401 Request header error"),
        ({"status": 302, "headers": {"Location": "/dex/auth"}, "content": b""}, "HTTP 302"),
        ({"status": 403}, "HTTP 403 the database is away. Renew the token or cookie"),
        (LOGIN_PAGE, "no answer of Kubeflow Pipelines"),
    ],
    ids=["wrong token", "redirect to a login", "no rights", "login page"],
)
def test_a_wrong_identity_is_an_error_at_once_and_never_shown(
    stub: Stub, tmp_path: Path, fault: dict[str, Any] | None, message: str
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    if fault is None:
        stub.token = "another"
    else:
        stub.faults = [Fault(method, "", times=9, **fault) for method in ("GET", "POST")]
    with pytest.raises(ClusterError) as caught:
        start_small(client(stub, token_file=tmp_path / "token"))
    assert message in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert not stub.runs


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "got FileNotFoundError"), (b"", "one line of text"), (b"a\nb", "one line"), (b"\xff", "Unicode")],
)
def test_a_file_without_a_token_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        connect(host="http://127.0.0.1:1", token_file=tmp_path / "token")


@pytest.mark.parametrize(
    ("token", "sent"),
    [(f"{TOKEN}\n", TOKEN), (f"{TOKEN}\nX-Evil: 1", None), ("tökén-of-the-team", None), (" ", None)],
)
def test_a_token_of_the_environment_is_one_line_and_never_shown(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, token: str, sent: str | None
) -> None:
    monkeypatch.setenv("KFP_EXISTING_TOKEN", token)
    stub.token = TOKEN
    if sent:
        assert start_small(client(stub)) == "run-1"
        return
    with pytest.raises(ConfigError, match=r"not a credential in KFP_EXISTING_TOKEN") as caught:
        start_small(client(stub))
    assert "of-the-team" not in str(caught.value)
    assert not stub.requests


@pytest.mark.parametrize(
    "host", ["http://me:hunter22@host", "me:hunter22@host:8888", "https://hunter22@host/x"]
)
@pytest.mark.parametrize("name", ["KF_PIPELINES_ENDPOINT", "KF_PIPELINES_UI_ENDPOINT", "--host"])
def test_a_password_in_an_address_is_refused_and_not_repeated(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, name: str, host: str
) -> None:
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", stub.url)
    if name != "--host":
        monkeypatch.setenv(name, host)
    with pytest.raises(ConfigError, match=rf"a password in an address in .*{name}") as caught:
        connect(host=host if name == "--host" else None)
    assert "hunter22" not in str(caught.value)


def test_an_address_is_needed(stub: Stub) -> None:
    with pytest.raises(ConfigError, match=r"no API server in --host. Give its address, or set KF_PIPELINES"):
        connect()


def test_without_the_client_the_extra_is_named() -> None:
    code = "import sys; sys.modules['kfp_server_api'] = None; from limbeck import kubeflow as k; k.connect()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'limbeck[pipelines]'" in result.stderr.splitlines()[-1]
