"""Training on several nodes: what a stub of the Kubernetes API is asked, and what its answers mean."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import certifi
import pytest

from limbeck.config import Config
from limbeck.preflight import Asked
from limbeck.preflight.trainjob import VERBS, Cluster, check_nodes, own_cluster
from tests.preflight.conftest import STAGES, lines

RUN = Asked(work_uri="s3://b/work", stages=STAGES)
MANY = Config.model_validate({"sft": {"deepspeed": {"nodes": 2}}, "ppo": {"deepspeed": {"nodes": 4}}})
ONE_NODE = "error: this version trains on one node in config.sft.deepspeed.nodes, config.ppo.deepspeed.nodes"


@contextmanager
def kubernetes(
    resources: list[str] | None, allowed: set[str], status: int = 200
) -> Iterator[tuple[Cluster, list[dict[str, Any]]]]:
    """A stub of the API; gives its address as a cluster, and the reviews that it was asked for.

    Args:
        resources: What trainer.kubeflow.org/v1alpha1 serves; None: it serves no such group.
        allowed: The verbs that it grants.
        status: What it answers to every request.
    """
    reviews: list[dict[str, Any]] = []

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/apis/trainer.kubeflow.org/v1alpha1" and resources is not None
            self._answer(200 if found else 404, {"resources": [{"name": name} for name in resources or ()]})

        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reviews.append(review["spec"]["resourceAttributes"])
            self._answer(201, {"status": {"allowed": reviews[-1]["verb"] in allowed}})

        def _answer(self, code: int, content: dict[str, Any]) -> None:
            granted = self.headers["Authorization"] == "Bearer a-token"
            self.send_response_only((code if granted else 401) if status == 200 else status)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield Cluster(f"http://127.0.0.1:{server.server_port}", "a-token", "team"), reviews
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


ANSWERS: dict[str, tuple[list[str] | None, set[str], int, list[str]]] = {
    "all there": (["trainjobs", "trainjobs/status"], set(VERBS), 200, []),
    "no such group": (
        None,
        set(VERBS),
        200,
        ["error: the cluster has no TrainJobs in /apis/trainer.kubeflow.org"],
    ),
    "another version": (["trainingruntimes"], set(VERBS), 200, ["error: the cluster has no TrainJobs"]),
    "some rights": (
        ["trainjobs"],
        {"get", "list"},
        200,
        ["error: the service account may not use TrainJobs in namespace team"],
    ),
    "both": (
        None,
        set(),
        200,
        ["error: the cluster has no TrainJobs", "error: the service account may not use"],
    ),
    "an API that fails": (
        ["trainjobs"],
        set(VERBS),
        500,
        ["error: the Kubernetes API does not answer"],
    ),
}


@pytest.mark.parametrize(("resources", "allowed", "status", "messages"), ANSWERS.values(), ids=ANSWERS)
def test_the_cluster_is_asked_for_trainjobs_and_rights(
    resources: list[str] | None, allowed: set[str], status: int, messages: list[str]
) -> None:
    with kubernetes(resources, allowed, status) as (cluster, reviews):
        first, *found = lines(check_nodes(RUN, MANY, cluster))
    assert first.startswith(ONE_NODE)
    for line, message in zip(dict.fromkeys(found), messages, strict=True):
        assert line.startswith(message)
    if status == 200:
        expected = {"group": "trainer.kubeflow.org", "resource": "trainjobs", "namespace": "team"}
        assert reviews == [expected | {"verb": verb} for verb in VERBS]


def test_missing_rights_are_named() -> None:
    with kubernetes(["trainjobs"], {"get", "list"}) as (cluster, _):
        line = lines(check_nodes(RUN, MANY, cluster))[1]
    assert "got no right to create, watch, delete. Apply manifests/components/multi-node" in line


def test_an_api_that_cannot_be_reached_is_a_finding() -> None:
    found = lines(check_nodes(RUN, MANY, Cluster("http://127.0.0.1:9", "a-token", "team")))
    assert all("the Kubernetes API does not answer" in line for line in found[1:])
    assert "a-token" not in "".join(found)


def test_outside_a_cluster_that_it_was_not_asked_is_said() -> None:
    first, second = lines(check_nodes(RUN, MANY, None))
    assert first.startswith(ONE_NODE)
    assert second.startswith("warning: the Kubernetes API cannot be asked from here about TrainJobs")


@pytest.mark.parametrize(
    ("asked", "config"),
    [(RUN, Config()), (replace(RUN, stages=["prepare", "generate", "judge"]), MANY)],
    ids=["one node", "no training"],
)
def test_without_several_nodes_nobody_is_asked(asked: Asked, config: Config) -> None:
    assert check_nodes(asked, config, None) == []


def test_a_pod_knows_its_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    assert own_cluster(tmp_path) is None  # an account without a token mounted
    for name, content in {"token": "a-token\n", "namespace": "team", "ca.crt": ""}.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "ca.crt").write_bytes(Path(certifi.where()).read_bytes())
    cluster = own_cluster(tmp_path)
    assert cluster is not None
    assert (cluster.url, cluster.token, cluster.namespace) == ("https://[fd00::1]:6443", "a-token", "team")

    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    assert own_cluster(tmp_path) is None
