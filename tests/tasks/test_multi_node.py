"""A training on two nodes, whole: the launcher asks a stub of the Kubernetes API, whose TrainJob runs here.

The controller does what Kubeflow Trainer and JobSet do: it starts the command of the TrainJob once a node,
with the variables of the torch policy. The nodes are real: torchrun, gloo, DeepSpeed, a real object store.
"""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from limbeck import local, seaweed
from limbeck.cluster_api import Pace, connect
from limbeck.config import parse_config
from limbeck.manifest import Manifest, commit, find
from limbeck.records import LabelledCompletion
from limbeck.rows import write_rows
from limbeck.storage import Store
from limbeck.tasks.launching import launch
from limbeck.tasks.specs import SftSpec
from tests import kube_stub, tiny
from tests.given import LETTERS
from tests.kube_stub import JOBS, NAMESPACE, Stub

CONFIG: dict[str, Any] = {
    "student": {"dtype": "float32"},
    "sft": {
        "batch_size": 4,
        "micro_batch_size": 2,
        "max_steps": 4,
        "max_length": 64,
        "deepspeed": {"nodes": 2, "zero_stage": 2, "gradient_checkpointing": False},
    },
}
PACE = Pace(first_wait=0.1, longest_wait=1.0, poll=0.1, watch=20.0)


def rows() -> list[LabelledCompletion]:
    return [
        LabelledCompletion(
            completion_id=f"{n}",
            prompt_id=f"{n:016x}",
            prompt=f"sum {LETTERS[n % 23]} a",
            source="teacher",
            text=f"= {LETTERS[n % 23]}",
            pseudo_reward=1.0,
            vote_share=1.0,
            selected=True,
            validation=False,
        )
        for n in range(16)
    ]


def play_controller(stub: Stub) -> None:
    """Run the nodes of the TrainJob that is created, and say what became of them."""
    stub.wait_for("POST", JOBS)
    (name, job), *_ = stub.jobs.items()
    trainer = job["spec"]["trainer"]
    secrets = {
        item["name"]: os.environ[item["name"]]
        for item in trainer["env"]
        if item["name"] in os.environ or not item["valueFrom"]["secretKeyRef"]["optional"]
    }
    policy = {
        "PET_NNODES": str(trainer["numNodes"]),
        "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
        "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": str(seaweed.free_ports(1)[0]),
    }
    assert trainer["command"][0] == "python3"
    nodes = [
        subprocess.Popen(
            [sys.executable, *trainer["command"][1:], *trainer["args"]],
            env=local.environment() | secrets | policy | {"PET_NODE_RANK": str(rank)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(trainer["numNodes"])
    ]
    pods = [stub.pod(name, rank) for rank in range(len(nodes))]
    stub.update(name, ready=1)

    def follow(rank: int) -> None:
        for line in nodes[rank].stdout or ():
            stub.log(pods[rank], line.rstrip("\n"))
        code = nodes[rank].wait()
        stub.pod(name, rank, phase="Failed" if code else "Succeeded", exit_code=code)

    threads = [threading.Thread(target=follow, args=(rank,)) for rank in range(len(nodes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failed = any(node.returncode for node in nodes)
    stub.update(name, failed="a node failed" if failed else "", complete="" if failed else "all are done")


def test_sft_on_two_nodes_from_the_launcher_to_its_manifest(
    store: Store,
    work_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    uri = f"{work_uri}/label/made"
    model = f"{work_uri}/student"
    for path in tiny.checkpoint(tmp_path / "model", seed=3).iterdir():
        store.write_file(path, f"{model}/{path.name}")
    labelled = commit(
        store,
        Manifest(
            stage="label",
            kind="labelled",
            name="teacher",
            uri=uri,
            objects=(write_rows(store, uri, rows()),),
            inputs={},
            config_hash="0" * 16,
            code_version="test",
            num_input_rows=16,
            num_rows=16,
            wall_seconds=0.0,
        ),
    )
    spec = SftSpec(
        work_uri=work_uri, config=CONFIG, labelled=labelled, model=model, selection="selected", role="student"
    )
    monkeypatch.setenv("KFP_POD_NAME", "launcher")
    with kube_stub.serve() as stub:
        stub.pods["launcher"] = {
            "metadata": {
                "name": "launcher",
                "ownerReferences": [
                    {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run", "uid": "uid-1"}
                ],
            },
            "spec": {"containers": [{"name": "wait", "image": "a"}, {"name": "main", "image": "ours"}]},
            "status": {},
        }
        cluster = connect(stub.url, NAMESPACE, pace=PACE)
        controller = threading.Thread(target=play_controller, args=(stub,), daemon=True)
        controller.start()
        made = launch(spec, parse_config(CONFIG), {"queue": "gpus"}, cluster)
        controller.join(30)
        (job,) = stub.jobs.values()
        assert job["spec"]["trainer"]["image"] == "ours"
        assert job["metadata"]["labels"]["limbeck/run"] == "uid-1"
        said = capsys.readouterr().out
        assert "4/4 steps" in said
        assert (made.stage, made.name, made.num_rows) == ("sft", "sft_selected", 16)
        assert made == find(store, made.uri)

        before = len(stub.requests)
        assert launch(spec, parse_config(CONFIG), {}, cluster) == made
        assert "has made it already" in capsys.readouterr().out
        assert [request.path.rpartition("/")[2] for request in stub.requests[before:]] == ["launcher"]
