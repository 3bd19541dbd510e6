"""Checks of training on several nodes: whether the cluster has what TrainJobs need, and who may use it."""

import os
from typing import TYPE_CHECKING, NamedTuple

from limbeck.config import TRAIN_STAGES, Config
from limbeck.errors import ConfigError
from limbeck.preflight.asked import Asked
from limbeck.preflight.findings import Finding, collected, warning
from limbeck.trainjob import GROUP, PLURAL, VERSION, TrainJobs, parse_train_jobs

if TYPE_CHECKING:
    from limbeck.cluster_api import Cluster

RUNTIMES = "trainingruntimes"
PATIENCE_SECONDS = 20.0
APPLY = "Apply manifests/components/multi-node"


class Right(NamedTuple):
    """What the launcher of a TrainJob does, as Kubernetes names rights."""

    verb: str
    resource: str
    group: str = ""
    subresource: str = ""

    def __str__(self) -> str:
        """As a role holds it."""
        kind = "/".join(filter(None, (self.resource, self.subresource)))
        return f"{self.verb} {kind}{'.' if self.group else ''}{self.group}"


RIGHTS = (
    *(Right(verb, PLURAL, GROUP) for verb in ("create", "list", "watch", "patch", "delete")),
    Right("get", RUNTIMES, GROUP),
    Right("get", "pods"),
    Right("list", "pods"),
    Right("get", "pods", subresource="log"),
)


def own_cluster() -> "Cluster | None":
    """The cluster that this process is a pod of, or None elsewhere."""
    if not os.environ.get("KUBERNETES_SERVICE_HOST"):
        return None
    from limbeck import cluster_api  # noqa: PLC0415 - the client is not there on every machine

    try:
        return cluster_api.own_cluster(cluster_api.USUAL._replace(patience=PATIENCE_SECONDS))
    except ConfigError:
        return None


def check_nodes(asked: Asked, config: Config, cluster: "Cluster | None", *, running: bool) -> list[Finding]:
    """What training on more than one node lacks.

    Args:
        asked: The run.
        config: Its settings.
        cluster: Where this process is a pod, if it is one.
        running: Whether the run has begun: its trainings are then started from where this is.
    """
    many = [
        f"config.{stage}.deepspeed.nodes"
        for stage in TRAIN_STAGES
        if asked.runs(stage) and getattr(config, stage).deepspeed.nodes > 1
    ]
    if not many:
        return []
    if cluster is None:
        error = ConfigError(
            "training on several nodes needs a cluster"
            if running
            else "TrainJobs were not checked from here",
            where=", ".join(many),
            expected="a pod with the token of a service account",
            remedy="Set it to 1, or submit the run to a cluster: docs/multi-node.md",
        )
        return [Finding(error) if running else warning(error)]
    findings: list[Finding] = []
    try:
        settings = parse_train_jobs(asked.train_jobs)
    except ConfigError:
        settings = TrainJobs()  # told with the other parameters
    for check in (_check_rights, _check_served, lambda there: _check_runtime(there, settings)):
        with collected(findings):
            check(cluster)
    return findings


def _check_rights(cluster: "Cluster") -> None:
    missing = [str(right) for right in RIGHTS if not _may(cluster, right)]
    if missing:
        raise ConfigError(
            "the service account may not use TrainJobs",
            where=f"namespace {cluster.namespace}",
            expected="; ".join(map(str, RIGHTS)),
            got=f"no right to {'; '.join(missing)}",
            remedy=f"{APPLY}, and bind its role to the account of the run",
        )


def _may(cluster: "Cluster", right: Right) -> bool:
    attributes = right._asdict() | {"namespace": cluster.namespace}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
    }
    answer = cluster.get("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    return answer is not None and answer.get("status", {}).get("allowed") is True


def _check_served(cluster: "Cluster") -> None:
    path = f"/apis/{GROUP}/{VERSION}"
    served = cluster.get(path) or {}
    if PLURAL not in [item.get("name") for item in served.get("resources", [])]:
        raise ConfigError(
            "the cluster has no TrainJobs",
            where=path,
            expected=f"{PLURAL}.{GROUP}/{VERSION}",
            remedy="Install Kubeflow Trainer 2, or train on one node",
        )


def _check_runtime(cluster: "Cluster", settings: TrainJobs) -> None:
    path = f"/apis/{GROUP}/{VERSION}/namespaces/{cluster.namespace}/{RUNTIMES}/{settings.runtime}"
    if cluster.get(path) is None:
        raise ConfigError(
            "the TrainingRuntime of TrainJobs is not there",
            where=f"namespace {cluster.namespace}",
            expected=settings.runtime,
            remedy=f"{APPLY}, or name yours in train_jobs.runtime",
        )
