"""The Kubernetes API as a pod reaches it, asked with patience: in a long training it is away for a while."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import urllib3
from kubernetes import client
from kubernetes.config.config_exception import ConfigException
from kubernetes.config.incluster_config import InClusterConfigLoader

from limbeck.errors import ClusterError, ConfigError
from limbeck.progress import say
from limbeck.trainjob import ACCOUNT, Owner

CONNECT_SECONDS = 10.0
MAX_MESSAGE = 300
Answer = TypeVar("Answer")
Document = dict[str, Any]
# Busy, broken, or away; also a conflict of writes, which the API asks to try again.
TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)


class Pace(NamedTuple):
    """How long is waited, in seconds."""

    first_wait: float = 1.0
    """After the first failure; doubled with each one."""
    longest_wait: float = 60.0
    patience: float = 3600.0
    """An API that has not answered for so long is given up: the next attempt of the task goes on."""
    answer: float = 60.0
    """For one answer."""
    poll: float = 5.0
    """Between two looks for a pod whose log can be read."""
    watch: float = 300.0
    """After which events and log lines are asked for anew: a dead connection may look like a quiet one."""
    tell: float = 600.0
    """Between two lines about a TrainJob that waits."""


USUAL = Pace()


@dataclass(frozen=True)
class Cluster:
    """The Kubernetes API."""

    api: client.ApiClient
    namespace: str
    pace: Pace = USUAL

    @property
    def objects(self) -> client.CustomObjectsApi:
        """What asks for TrainJobs."""
        return client.CustomObjectsApi(self.api)

    @property
    def core(self) -> client.CoreV1Api:
        """What asks for pods and their logs."""
        return client.CoreV1Api(self.api)

    def get(self, path: str, body: Document | None = None) -> Document | None:
        """What lies at a path of the API, or the answer to a body that is posted there; None if nothing does.

        Raises:
            ClusterError: when the API refuses, or is away for too long.
        """
        method = "POST" if body else "GET"
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        options = {"header_params": headers, "body": body, "response_type": "object"}
        try:
            found: tuple[Document, int, object] = self.ask(
                f"give {path}", self.api.call_api, path, method, auth_settings=["BearerToken"], **options
            )
        except client.ApiException as error:
            if error.status == 404:
                return None
            raise refused(error, path, "read it") from error
        return found[0]

    def ask(self, what: str, call: Callable[..., Answer], *arguments: object, **options: object) -> Answer:
        """Make a call again and again until the API answers it, with whatever but a failure of its own.

        Raises:
            ClusterError: when it has been away for too long.
            ApiException: for any other refusal; the caller knows what it means.
        """
        timeout = (CONNECT_SECONDS, self.pace.answer)
        return self.patiently(what, lambda: call(*arguments, _request_timeout=timeout, **options))

    def patiently(self, what: str, call: Callable[[], Answer]) -> Answer:
        """The same for a call that sets its own timeout."""
        started, wait = time.monotonic(), self.pace.first_wait
        while True:
            try:
                return call()
            except (client.ApiException, urllib3.exceptions.HTTPError) as error:
                if isinstance(error, client.ApiException) and error.status not in TRY_AGAIN:
                    raise
                if time.monotonic() - started > self.pace.patience:
                    raise ClusterError(
                        "the Kubernetes API has been away for too long",
                        where=what,
                        got=message(error),
                        remedy="Run it again: what it has started goes on without it, and is taken over",
                    ) from error
                pause = min(max(wait, retry_after(error)), self.pace.longest_wait)
                say(f"the Kubernetes API does not {what}: {message(error)}; again in {pause:.0f} s")
            time.sleep(pause)
            wait *= 2


def own_cluster(pace: Pace = USUAL, account: Path = ACCOUNT) -> Cluster:
    """The cluster that this process is a pod of.

    Args:
        pace: How long is waited.
        account: Where the token of the pod's service account lies.

    Raises:
        ConfigError: when it is none.
    """
    settings = client.Configuration()
    settings.retries = False  # urllib3 would hide failures, and try again without waiting
    try:
        # What `load_incluster_config` does, which knows no other folder.
        InClusterConfigLoader(str(account / "token"), str(account / "ca.crt")).load_and_set(settings)
        namespace = (account / "namespace").read_text(encoding="utf-8").strip()
    except (ConfigException, OSError) as error:
        raise ConfigError(
            "training on several nodes needs a cluster",
            expected="a pod with the token of a service account (automountServiceAccountToken)",
            got=str(error),
            remedy="Set config.*.deepspeed.nodes to 1, or submit the run to a cluster: docs/multi-node.md",
        ) from error
    return Cluster(client.ApiClient(settings), namespace, pace)


def connect(url: str, namespace: str, token: str = "", pace: Pace = USUAL) -> Cluster:
    """A cluster at an address, such as `kubectl proxy` gives."""
    settings = client.Configuration(host=url)
    settings.retries = False
    if token:
        settings.api_key["authorization"] = f"Bearer {token}"
    return Cluster(client.ApiClient(settings), namespace, pace)


class OwnPod(NamedTuple):
    """What this pod says of itself."""

    image: str
    owner: Owner | None


def own_pod(cluster: Cluster) -> OwnPod:
    """The image of this pod's task, and the Workflow that is its run.

    Raises:
        ClusterError: when the pod cannot be read.
    """
    name = os.environ.get("KFP_POD_NAME") or os.environ.get("HOSTNAME", "")
    try:
        pod = cluster.ask("give this pod", cluster.core.read_namespaced_pod, name, cluster.namespace)
    except client.ApiException as error:
        raise refused(error, f"pod {name}", "get pods") from error
    containers = {item.name: item.image for item in pod.spec.containers}
    owners = [item for item in pod.metadata.owner_references or [] if item.kind == "Workflow"]
    return OwnPod(
        image=containers.get("main") or pod.spec.containers[0].image,
        owner=Owner(owners[0].name, owners[0].uid, owners[0].api_version) if owners else None,
    )


def refused(error: client.ApiException, where: str, right: str) -> ClusterError:
    """What a refusal of the API means."""
    remedy = "Read what it says"
    if error.status in (401, 403):
        remedy = f"The account of the run needs the right to {right}: apply manifests/components/multi-node"
    return ClusterError(
        "the Kubernetes API refuses", where=where, got=f"{error.status} {message(error)}", remedy=remedy
    )


def message(error: Exception) -> str:
    """What went wrong in the API's own words, or in those of the connection."""
    if not isinstance(error, client.ApiException):
        return f"{type(error).__name__}: {error}"[:MAX_MESSAGE]
    try:
        said = json.loads(error.body or "").get("message", "")
    except (ValueError, AttributeError):
        said = ""
    return str(said or error.reason or error.status)[:MAX_MESSAGE]


def retry_after(error: Exception) -> float:
    """Seconds that the API asks to wait, 0 where it says nothing."""
    headers = getattr(error, "headers", None) or {}
    value = str(headers.get("Retry-After", ""))
    return float(value) if value.isdecimal() else 0.0
