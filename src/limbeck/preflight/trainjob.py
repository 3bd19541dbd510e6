"""Checks of training on several nodes: whether the cluster serves TrainJobs, and this account may use them.

Two kinds of requests to the Kubernetes API, made by hand: its client package brings a dozen others into the
slim image that preflight runs in.
"""

import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.config import Config
from limbeck.errors import ConfigError, LimbeckError
from limbeck.preflight.asked import Asked
from limbeck.preflight.findings import Finding, collected, warning

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
GROUP, VERSION, RESOURCE = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
VERBS = ("create", "get", "list", "watch", "delete")
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
TIMEOUT_SECONDS = 10
TRAIN_STAGES = ("sft", "reward", "ppo")


@dataclass(frozen=True)
class Cluster:
    """The Kubernetes API, as the service account of a pod reaches it."""

    url: str
    token: str
    namespace: str
    tls: ssl.SSLContext | None = None

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """GET a path, or POST a body to it.

        Raises:
            urllib.error.URLError: when the API does not answer, or not with success.
            ValueError: when the answer is no JSON.
        """
        request = urllib.request.Request(  # noqa: S310 - the address is the pod's own API server
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=self.tls) as answer:  # noqa: S310
            return dict(json.load(answer))


def own_cluster(account: Path = ACCOUNT) -> Cluster | None:
    """The cluster that this process is a pod of, or None elsewhere or without an account."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not all((account / name).is_file() for name in ("token", "namespace", "ca.crt")):
        return None
    return Cluster(
        url=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        token=(account / "token").read_text(encoding="utf-8").strip(),
        namespace=(account / "namespace").read_text(encoding="utf-8").strip(),
        tls=ssl.create_default_context(cafile=str(account / "ca.crt")),
    )


def check_nodes(asked: Asked, config: Config, cluster: Cluster | None) -> list[Finding]:
    """More than one node for a training: what the cluster lacks, and that this version starts no TrainJob."""
    many = [
        f"config.{stage}.deepspeed.nodes"
        for stage in TRAIN_STAGES
        if asked.runs(stage) and getattr(config, stage).deepspeed.nodes > 1
    ]
    if not many:
        return []
    error = ConfigError(
        "this version trains on one node",
        where=", ".join(many),
        expected="1",
        remedy="Set it to 1; several nodes come with a later version",
    )
    return [Finding(error), *_rights(cluster)]


def _rights(cluster: Cluster | None) -> list[Finding]:
    """Whether TrainJobs are served, and what this account may do with them."""
    if cluster is None:
        error = ConfigError(
            "the Kubernetes API cannot be asked from here about TrainJobs",
            expected="a pod with a service account",
            remedy="Run the pipeline's component `preflight` on the cluster",
        )
        return [warning(error)]
    findings: list[Finding] = []
    with collected(findings):
        _check_served(cluster)
    with collected(findings):
        _check_verbs(cluster)
    return findings


def _check_served(cluster: Cluster) -> None:
    path = f"/apis/{GROUP}/{VERSION}"
    try:
        served = cluster.ask(path).get("resources", [])
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise _no_answer(error) from error
        served = []
    except (OSError, ValueError) as error:
        raise _no_answer(error) from error
    if RESOURCE not in [item.get("name") for item in served]:
        raise ConfigError(
            "the cluster has no TrainJobs",
            where=path,
            expected=f"{RESOURCE}.{GROUP}/{VERSION}",
            remedy="Install Kubeflow Trainer 2, or train on one node",
        )


def _check_verbs(cluster: Cluster) -> None:
    try:
        refused = [verb for verb in VERBS if not _may(cluster, verb)]
    except (OSError, ValueError) as error:
        raise _no_answer(error) from error
    if refused:
        raise ConfigError(
            "the service account may not use TrainJobs",
            where=f"namespace {cluster.namespace}",
            expected=f"the verbs {', '.join(VERBS)} on {RESOURCE}.{GROUP}",
            got=f"no right to {', '.join(refused)}",
            remedy="Apply manifests/components/multi-node, and bind its role to the account of the run",
        )


def _may(cluster: Cluster, verb: str) -> bool:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {
            "resourceAttributes": {
                "group": GROUP,
                "resource": RESOURCE,
                "verb": verb,
                "namespace": cluster.namespace,
            }
        },
    }
    return cluster.ask(REVIEWS, review).get("status", {}).get("allowed") is True


def _no_answer(error: Exception) -> LimbeckError:
    return ConfigError(
        "the Kubernetes API does not answer",
        where="the question whether TrainJobs may be used",
        got=f"{type(error).__name__} {getattr(error, 'code', '')}",
        remedy="Allow preflight's pod to reach the API server (NetworkPolicy), and run again",
    )
