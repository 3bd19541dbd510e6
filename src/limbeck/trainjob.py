"""The TrainJob of a training on several nodes, as plain data: Kubeflow Trainer 2.0 to 2.3 take it.

Only what all of these know is set; what is the same for every training of a site (volumes, tolerations, grace
period, restarts) is in the TrainingRuntime, manifests/components/multi-node.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from limbeck.resources import StageRequest
from limbeck.section import Section, parse

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes puts the token of a pod's service account."""
GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
RUN_LABEL = "limbeck/run"
"""On a TrainJob: the uid of the Workflow that waits for it. Written by the launcher, read by `cleanup`."""
DIGEST_ANNOTATION = "limbeck/digest"
"""On a TrainJob: the hash of what it trains; another attempt takes over only what has its own."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
CONTAINER = "node"
"""What Trainer calls the container that trains, and the replicated job around it."""
S3_KEYS = {
    "AWS_ACCESS_KEY_ID": False,
    "AWS_SECRET_ACCESS_KEY": False,
    "AWS_ENDPOINT_URL": False,
    "AWS_REGION": True,
}
"""Variables from the object store's secret, and whether the secret may lack them."""
API_KEY = "OPENAI_API_KEY"
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$")]


class TrainJobs(Section):
    """What a run says of its TrainJobs: the parameter `train_jobs` of the pipelines."""

    runtime: Name = "limbeck"
    """The TrainingRuntime of this namespace; manifests/components/multi-node has the one of the default."""
    queue: Name | None = None
    """Kueue's LocalQueue that holds them until there is room; null starts them at once."""
    priority_class: Name | None = None
    """Kueue's WorkloadPriorityClass; null leaves it to the queue."""


class TrainJobSettings(TrainJobs):
    """All that is set of the TrainJobs of a run: the parameter `train_jobs` of `sft`, `reward` and `ppo`."""

    s3_secret: Name = "limbeck-s3"  # noqa: S105 - its name
    """Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL and, optional, AWS_REGION."""
    api_secret: Name = "limbeck-api"  # noqa: S105 - its name
    """Secret with OPENAI_API_KEY, for a judge of rollouts that a server runs; it need not exist."""
    gpu_resource: Annotated[str, Field(pattern=r"^[A-Za-z0-9][-A-Za-z0-9./]*$")] = "nvidia.com/gpu"
    """What the cluster calls its GPUs."""
    nodes: dict[str, StageRequest] = Field(default={})
    """What each node of a stage's training asks for; one that is not named, its default."""


def parse_train_jobs(values: dict[str, Any]) -> TrainJobs:
    """Check the parameter of the pipelines."""
    return parse(TrainJobs, values, "train_jobs")


def parse_settings(values: dict[str, Any]) -> TrainJobSettings:
    """Check the parameter of a training (JSON from Kubeflow; its ints arrive as floats)."""
    return parse(TrainJobSettings, values, "train_jobs")


@dataclass(frozen=True)
class Owner:
    """The Workflow that a run is; with it goes what it owns."""

    name: str
    uid: str
    api_version: str = "argoproj.io/v1alpha1"


@dataclass(frozen=True)
class TrainJob:
    """One training on several nodes."""

    stage: str
    digest: str
    """Of all that it is given: its sha256."""
    spec_uri: str
    """What it trains, for its pods to read."""
    image: str
    nodes: int
    processes: int
    """On each node."""
    request: StageRequest
    """Of each node."""
    settings: TrainJobSettings
    owner: Owner | None = None

    @property
    def name(self) -> str:
        """The same for the same training; short enough for the names of its pods, which begin with it."""
        return name_of(self.stage, self.digest)


def name_of(stage: str, digest: str) -> str:
    """The name of the TrainJob of a training."""
    return f"limbeck-{stage}-{digest[:16]}"


def manifest(job: TrainJob) -> dict[str, Any]:
    """The object to create.

    With a queue it is created suspended, and Kueue resumes it. It is owned by the run's Workflow, not by the
    launcher's pod: it outlives a launcher that is lost, and the next one goes on watching it.
    """
    given = job.settings
    labels = {"app.kubernetes.io/part-of": "limbeck"}
    if given.queue:
        labels[QUEUE_LABEL] = given.queue
    if given.priority_class:
        labels[PRIORITY_LABEL] = given.priority_class
    size = {"cpu": job.request.cpu, "memory": job.request.memory}
    if job.request.gpus:
        size[given.gpu_resource] = str(job.request.gpus)
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {
            "name": job.name,
            "labels": labels,
            "annotations": {DIGEST_ANNOTATION: job.digest},
        }
        | _owned(job.owner, labels),
        "spec": {
            "runtimeRef": {"apiGroup": GROUP, "kind": "TrainingRuntime", "name": given.runtime},
            "trainer": {
                "image": job.image,
                "command": ["python3", "-m", "limbeck.tasks.node"],
                "args": [job.spec_uri],
                "env": _variables(given),
                "numNodes": job.nodes,
                "numProcPerNode": job.processes,
                "resourcesPerNode": {"requests": size, "limits": size},
            },
            "suspend": given.queue is not None,
        },
    }


def adoption(job: TrainJob) -> list[dict[str, Any]]:
    """A JSON patch that gives a running TrainJob to this run: the end of the earlier one leaves it alone."""
    given: dict[str, Any] = manifest(job)["metadata"]
    return [
        {"op": "add", "path": f"/metadata/{key}", "value": given[key]}
        for key in ("labels", "ownerReferences")
        if key in given
    ]


def _owned(owner: Owner | None, labels: Mapping[str, str]) -> dict[str, Any]:
    """Labels and owners of what a run owns; elsewhere than in a run nothing owns it."""
    if owner is None:
        return {"labels": dict(labels)}
    reference = {"apiVersion": owner.api_version, "kind": "Workflow", "name": owner.name, "uid": owner.uid}
    return {"labels": {**labels, RUN_LABEL: owner.uid}, "ownerReferences": [reference]}


def _variables(given: TrainJobSettings) -> list[dict[str, Any]]:
    """The environment; secrets are named, not read."""
    wanted = [(given.s3_secret, key, optional) for key, optional in S3_KEYS.items()]
    wanted.append((given.api_secret, API_KEY, True))
    return [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key, "optional": optional}}}
        for secret, key, optional in wanted
    ]


@dataclass(frozen=True)
class State:
    """What a TrainJob says of itself."""

    version: str
    """`resourceVersion`: from where a watch goes on."""
    digest: str
    ended: bool
    failure: str
    """Why it failed, empty if it has not."""
    deleting: bool
    waiting: str
    """What it waits for, in words; empty once all its nodes work."""
    nodes: int


def read_state(found: Mapping[str, Any]) -> State:
    """Read what the API gave of a TrainJob."""
    metadata, spec, status = found["metadata"], found.get("spec", {}), found.get("status", {})
    conditions = {item["type"]: item for item in status.get("conditions", []) if item.get("status") == "True"}
    failed = conditions.get("Failed")
    nodes = int(spec.get("trainer", {}).get("numNodes") or 1)
    ready = sum(
        int(job.get(field) or 0) for job in status.get("jobsStatus", []) for field in ("ready", "succeeded")
    )
    waiting = ""
    if spec.get("suspend"):
        queue = metadata.get("labels", {}).get(QUEUE_LABEL)
        waiting = f"in queue {queue} until there is room" if queue else "suspended until somebody resumes it"
    elif ready < _jobs_of(status):
        waiting = f"until all of its {nodes} nodes are up"
    why = ": ".join(filter(None, (failed.get("reason"), failed.get("message")))) if failed else ""
    return State(
        version=metadata.get("resourceVersion", ""),
        digest=metadata.get("annotations", {}).get(DIGEST_ANNOTATION, ""),
        ended=failed is not None or "Complete" in conditions,
        failure=re.sub(r"\s+", " ", why) or ("no reason given" if failed else ""),
        deleting="deletionTimestamp" in metadata,
        waiting=waiting,
        nodes=nodes,
    )


def _jobs_of(status: Mapping[str, Any]) -> int:
    """How many replicated jobs there are to become ready; one before any is known."""
    return len(status.get("jobsStatus", [])) or 1
