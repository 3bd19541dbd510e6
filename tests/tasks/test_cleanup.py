"""The end of a run, as the pod of its exit handler: the token, certificate and namespace of its account."""

import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from limbeck.config import parse_config
from limbeck.tasks.launching import tidy
from limbeck.trainjob import Owner, manifest
from tests import kube_stub
from tests.certificate import make_certificate
from tests.kube_stub import JOBS, NAMESPACE, Stub
from tests.test_launcher import JOB

TOKEN = "a-token"


@pytest.fixture
def account(tmp_path: Path) -> Path:
    make_certificate(tmp_path).rename(tmp_path / "ca.crt")
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "namespace").write_text(f"{NAMESPACE}\n")
    return tmp_path


@pytest.fixture
def stub(account: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    """The API of the cluster that this process is a pod of; three TrainJobs are there, two of its run."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(account / "server.pem")
    with kube_stub.serve(context) as served:
        served.token = TOKEN
        address = urlsplit(served.url)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", str(address.hostname))
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(address.port))
        monkeypatch.setenv("KFP_POD_NAME", "cleanup")
        workflow = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run", "uid": "mine"}
        served.pods["cleanup"] = {
            "metadata": {"name": "cleanup", "ownerReferences": [workflow]},
            "spec": {"containers": [{"name": "main", "image": "ours"}]},
            "status": {},
        }
        for stage, uid in (("sft", "mine"), ("reward", "mine"), ("ppo", "of-another")):
            job = replace(JOB, stage=stage, owner=Owner("run", uid))
            served.jobs[job.name] = manifest(job)
        yield served


def test_the_trainjobs_of_the_pods_own_run_are_deleted(
    stub: Stub, account: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tidy(parse_config({"reward": {"deepspeed": {"nodes": 2}}}), account)
    assert [job["metadata"]["labels"]["limbeck/run"] for job in stub.jobs.values()] == ["of-another"]
    assert len(stub.asked("DELETE", JOBS)) == 2
    assert capsys.readouterr().out == "limbeck: cleanup: 2 TrainJobs of this run deleted\n"


def test_where_all_trainings_were_on_one_node_nobody_is_asked(stub: Stub, account: Path) -> None:
    tidy(parse_config({}), account)
    assert stub.requests == []
