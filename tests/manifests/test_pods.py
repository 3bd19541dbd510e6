"""The pods that overlays bring themselves: restricted, bounded, with arguments that their program takes."""

import copy
import errno
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from limbeck import processes, seaweed
from limbeck.errors import StorageError
from limbeck.storage import Store
from limbeck.trainjob import CONTAINER
from manifests.kustomize import Resource
from pipelines.pods import SCRATCH_PATH, SHARED_MEMORY_PATH
from tests.manifests.built import everything, the_one

PodSpec = dict[str, Any]
# The volume types of the Pod Security Standard `restricted`.
VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def pods() -> list[Resource]:
    """The pod, or its template, of every workload of every overlay and example."""
    workloads = [found for found in everything() if found["kind"] in ("StatefulSet", "Deployment", "Job")]
    bare = [found for found in everything() if found["kind"] == "Pod"]
    return [workload["spec"]["template"] for workload in workloads] + bare


def train_job_pod() -> Resource:
    """The template of the pods of TrainJobs; their limits come with each TrainJob."""
    runtime = the_one("examples/team", "TrainingRuntime")
    (job,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    found: Resource = copy.deepcopy(job["template"]["spec"]["template"])
    return found


def pod_specs() -> list[PodSpec]:
    """What is in them."""
    return [pod["spec"] for pod in pods()]


def the_probe() -> PodSpec:
    """The container of the example that tries the network."""
    (pod,) = (resource for resource in everything() if resource["kind"] == "Pod")
    (container,) = pod["spec"]["containers"]
    found: PodSpec = container
    return found


def offences(pod: PodSpec) -> list[str]:
    """What `restricted` (Kubernetes 1.31) and this project forbid in a pod."""
    found = [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    found += [
        f"volume {volume['name']}"
        for volume in pod.get("volumes", [])
        if not set(volume) - {"name"} <= VOLUMES
    ]
    of_pod = pod.get("securityContext", {})
    for container in pod.get("initContainers", []) + pod["containers"]:
        own = container.get("securityContext", {})
        both = of_pod | own
        checks = {
            "runAsNonRoot": both.get("runAsNonRoot") is True,
            "runAsUser": both.get("runAsUser", 0) > 0,
            "seccompProfile": both.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "privileged": not own.get("privileged"),
            "capabilities": own.get("capabilities") == {"drop": ["ALL"]},
            "readOnlyRootFilesystem": own.get("readOnlyRootFilesystem") is True,
            "hostPort": not any("hostPort" in port for port in container.get("ports", [])),
            "limits": {"cpu", "memory", "ephemeral-storage"} <= container["resources"]["limits"].keys(),
        }
        found += [key for key, holds in checks.items() if not holds]
    return found


def test_every_pod_is_restricted_with_a_read_only_root_and_limits() -> None:
    assert len(pod_specs()) == 2
    for pod in pod_specs():
        assert offences(pod) == []


def test_the_pods_of_trainjobs_are_restricted_and_find_what_a_training_needs() -> None:
    pod = train_job_pod()
    (container,) = pod["spec"]["containers"]
    container["resources"] = {"limits": dict.fromkeys(("cpu", "memory", "ephemeral-storage"), "1")}
    assert offences(pod["spec"]) == []
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert container["name"] == CONTAINER
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {SHARED_MEMORY_PATH, SCRATCH_PATH}
    assert pod["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"


@pytest.mark.parametrize(
    ("place", "value", "offence"),
    [
        (("hostNetwork",), True, "hostNetwork"),
        (("securityContext", "runAsNonRoot"), False, "runAsNonRoot"),
        (("securityContext", "runAsUser"), 0, "runAsUser"),
        (("securityContext", "seccompProfile"), {"type": "Unconfined"}, "seccompProfile"),
        (("containers", 0, "securityContext", "runAsNonRoot"), False, "runAsNonRoot"),
        (("containers", 0, "securityContext", "privileged"), True, "privileged"),
        (("containers", 0, "securityContext", "allowPrivilegeEscalation"), True, "allowPrivilegeEscalation"),
        (("containers", 0, "securityContext", "capabilities"), {"drop": ["NET_RAW"]}, "capabilities"),
        (("containers", 0, "securityContext", "readOnlyRootFilesystem"), False, "readOnlyRootFilesystem"),
        (("volumes", 0), {"name": "node", "hostPath": {"path": "/"}}, "volume node"),
    ],
)
def test_a_pod_that_is_not_restricted_is_seen(place: tuple[Any, ...], value: Any, offence: str) -> None:
    pod = copy.deepcopy(pod_specs()[0])
    node: Any = pod
    for part in place[:-1]:
        node = node[part]
    node[place[-1]] = value
    assert offences(pod) == [offence]


def test_no_pod_waits_for_a_sidecar_in_the_namespace_of_a_profile() -> None:
    """Kubeflow's profiles have Istio put one in, which cannot get out to its control plane."""
    for pod in pods():
        assert pod["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"


def test_the_store_takes_the_arguments_and_the_key_of_its_pod_and_refuses_strangers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (container,) = the_one("overlays/dev", "StatefulSet")["spec"]["template"]["spec"]["containers"]
    s3, master, filer, volume = seaweed.free_ports(4)
    replaced = {"-dir": str(tmp_path), "-s3.ip.bind": "127.0.0.1", "-s3.port": str(s3)}
    names = [argument.partition("=")[0] for argument in container["args"]]
    assert replaced.keys() <= set(names)
    arguments = [
        f"{name}={replaced[name]}" if name in replaced else argument
        for name, argument in zip(names, container["args"], strict=True)
    ]
    arguments += [f"-master.port={master}", f"-filer.port={filer}", f"-volume.port={volume}"]
    probe = container["readinessProbe"]["httpGet"]
    environment = {variable["name"]: "long-enough-for-a-key" for variable in container["env"]}
    assert environment.keys() == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}

    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [seaweed.binary(), *arguments],
            cwd=tmp_path,
            env=environment | {"HOME": str(tmp_path)},
            stderr=log,
            text=True,
            start_new_session=True,
            preexec_fn=processes.dies_with_parent(signal.SIGKILL),  # noqa: PLW1509 - one call, nothing loaded
        )
    try:
        deadline = time.monotonic() + 60
        while not answers(f"http://127.0.0.1:{s3}{probe['path']}"):
            assert server.poll() is None, (tmp_path / "log").read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"http://127.0.0.1:{s3}/bucket/key", timeout=10)
        for variable, value in (environment | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3}"}).items():
            monkeypatch.setenv(variable, value)
        store = Store()
        with pytest.raises(StorageError, match="no such bucket"):
            store.listing("s3://limbeck/work")
        store.make_bucket("s3://limbeck/work")
        assert store.listing("s3://limbeck/work") == {}
        store.write_bytes("s3://limbeck/work/a", b"1")
        assert store.read_bytes("s3://limbeck/work/a") == b"1"
    finally:
        server.kill()  # asked politely it takes 20 s
        server.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:  # noqa: S310 - loopback
            return bool(reply.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


def test_every_exception_to_the_policy_check_has_its_reason() -> None:
    reasons = [
        value
        for resource in everything()
        for key, value in resource["metadata"].get("annotations", {}).items()
        if key.startswith("checkov.io/skip")
    ]
    assert len(reasons) == 3
    for reason in reasons:
        check, _, why = reason.partition("=")
        assert check.startswith("CKV")
        assert len(why.split()) > 5


def test_the_probe_tries_what_policies_open_and_what_they_shut() -> None:
    container = the_probe()
    assert container["image"].startswith("registry.invalid/limbeck/tools:")  # nobody's, until you name yours
    assert f"sed 's,{container['image']}," in Path("docs/cluster.md").read_text()
    assert container["args"][1:] == [
        "kubernetes.default.svc:443=open",
        "ml-pipeline.kubeflow:8887=open",
        "metadata-grpc-service.kubeflow:8080=open",
        "ml-pipeline.kubeflow:8888=shut",
        "example.com:443=shut",
    ]


def test_the_probe_says_of_every_address_whether_it_is_as_it_should_be() -> None:
    container = the_probe()
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # taken, but nobody listens
        there, away = (f"127.0.0.1:{end.getsockname()[1]}" for end in (listening, silent))
        targets = [f"{address}={word}" for word in ("open", "shut") for address in (there, away)]
        done = subprocess.run(
            [sys.executable, *container["command"][1:], container["args"][0], *targets],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    refused = f"shut ({os.strerror(errno.ECONNREFUSED)})"
    assert done.stdout.splitlines() == [
        f"{there} is open: as it should be",
        f"{away} is {refused}: WRONG, should be open",
        f"{there} is open: WRONG, should be shut",
        f"{away} is {refused}: as it should be",
    ]
