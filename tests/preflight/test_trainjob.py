"""Training on several nodes: what a stub of the Kubernetes API is asked, and what its answers mean."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from limbeck.cluster_api import Cluster, Pace, connect
from limbeck.config import Config
from limbeck.preflight import Asked
from limbeck.preflight.trainjob import RIGHTS, check_nodes, own_cluster
from tests import kube_stub
from tests.kube_stub import NAMESPACE, Json, Stub
from tests.preflight.conftest import STAGES, lines

RUN = Asked(work_uri="s3://b/work", stages=STAGES, train_jobs={"queue": "gpus"})
MANY = Config.model_validate({"sft": {"deepspeed": {"nodes": 2}}, "ppo": {"deepspeed": {"nodes": 4}}})
PACE = Pace(first_wait=0.01, longest_wait=0.02, patience=0.1, answer=5.0)
TOKEN = "a-token"


@pytest.fixture
def stub() -> Iterator[Stub]:
    with kube_stub.serve() as served:
        served.token = TOKEN
        yield served


def reach(stub: Stub) -> Cluster:
    return connect(stub.url, NAMESPACE, TOKEN, PACE)


def found(stub: Stub, asked: Asked = RUN) -> list[str]:
    return lines(check_nodes(asked, MANY, reach(stub), running=True))


def test_a_cluster_that_has_everything_is_asked_for_each_right_and_nothing_is_found(stub: Stub) -> None:
    assert found(stub) == []
    reviews = stub.asked("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
    asked = [review.body["spec"]["resourceAttributes"] for review in reviews]
    assert asked == [
        {key: value for key, value in right._asdict().items() if value} | {"namespace": NAMESPACE}
        for right in RIGHTS
    ]


def test_the_rights_that_are_asked_for_are_those_of_the_component_for_several_nodes() -> None:
    from tests.manifests.test_rights import TRAIN_JOBS  # noqa: PLC0415 - what the manifests are tested for

    wanted = {
        (right.group, "/".join(filter(None, (right.resource, right.subresource))), "*", right.verb)
        for right in RIGHTS
    }
    base = {("", "pods", "*", "get")}
    assert wanted == TRAIN_JOBS | base


def only_reads(attributes: Json) -> bool:
    return attributes["verb"] in ("get", "list")


def test_missing_rights_are_named(stub: Stub) -> None:
    stub.allowed = only_reads
    (line,) = found(stub)
    assert line.startswith("error: the service account may not use TrainJobs in namespace team")
    assert (
        "got no right to create trainjobs.trainer.kubeflow.org; watch trainjobs.trainer.kubeflow.org; "
        "patch trainjobs.trainer.kubeflow.org; delete trainjobs.trainer.kubeflow.org. "
        "Apply manifests/components/multi-node"
    ) in line


@pytest.mark.parametrize("served", [None, ["trainingruntimes"]], ids=["no such group", "another version"])
def test_a_cluster_without_trainjobs_is_found(stub: Stub, served: list[str] | None) -> None:
    stub.served = served
    (line,) = found(stub)
    assert line.startswith("error: the cluster has no TrainJobs in /apis/trainer.kubeflow.org/v1alpha1")


def test_a_runtime_that_is_not_there_is_found(stub: Stub) -> None:
    (line,) = found(stub, replace(RUN, train_jobs={"runtime": "big-nodes"}))
    assert line.startswith("error: the TrainingRuntime of TrainJobs is not there in namespace team")
    assert "expected big-nodes. Apply" in line


def test_an_api_that_cannot_be_reached_is_a_finding_without_its_token() -> None:
    cluster = connect("http://127.0.0.1:9", NAMESPACE, TOKEN, PACE)
    found = lines(check_nodes(RUN, MANY, cluster, running=True))
    assert found
    assert all(line.startswith("error: the Kubernetes API has been away for too long") for line in found)
    assert TOKEN not in "".join(found)


def test_outside_a_cluster_a_run_ends_here_and_a_look_ahead_warns() -> None:
    (error,) = lines(check_nodes(RUN, MANY, None, running=True))
    assert error.startswith(
        "error: training on several nodes needs a cluster in "
        "config.sft.deepspeed.nodes, config.ppo.deepspeed.nodes: expected a pod"
    )
    assert error.endswith("Set it to 1, or submit the run to a cluster: docs/multi-node.md")
    (warning,) = lines(check_nodes(RUN, MANY, None, running=False))
    assert warning.startswith("warning: TrainJobs were not checked from here")


@pytest.mark.parametrize(
    ("asked", "config"),
    [(RUN, Config()), (replace(RUN, stages=["prepare", "generate", "judge"]), MANY)],
    ids=["one node", "no training"],
)
def test_without_several_nodes_nobody_is_asked(asked: Asked, config: Config) -> None:
    assert check_nodes(asked, config, None, running=True) == []


def test_a_process_that_is_no_pod_has_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert own_cluster() is None
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")  # an account without a token mounted
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    assert own_cluster() is None
