"""The logs of a TrainJob's pods: the first node's as it grows, and the end of the one that failed first."""

import re
import threading
import time
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

import urllib3
from kubernetes import client, watch

from limbeck.cluster_api import CONNECT_SECONDS, Cluster, message
from limbeck.errors import ClusterError, one_line
from limbeck.progress import say
from limbeck.trainjob import CONTAINER

POD_OF_JOB = "jobset.sigs.k8s.io/jobset-name"
RANK = "batch.kubernetes.io/job-completion-index"
TAIL_LINES = 20
FIRST_LINES = 1000
"""Of a log that was begun before this launcher looked."""
SLACK_SECONDS = 60
"""By which the log is read again after a broken connection; what was shown is skipped."""


class Relay:
    """Shows the log of the first node while the block lasts, each line once."""

    def __init__(self, name: str, cluster: Cluster) -> None:
        self._name, self._cluster = name, cluster
        self._pod = ""  # the uid of the one that is read
        self._last = ("", "")  # the moment of the newest line
        self._heard = time.monotonic()
        self._told = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Show what is still to come, which is not waited for long: the training is over."""
        self._over.set()
        if kind is not None:
            return
        self._thread.join(self._cluster.pace.answer)
        if not self._thread.is_alive():
            self._read(follow=False)

    def _run(self) -> None:
        while not self._over.is_set():
            self._read(follow=True)
            self._over.wait(self._cluster.pace.poll)

    def _read(self, *, follow: bool) -> None:
        """Show the lines that are new, with `follow` until the log ends or the connection breaks.

        A log that cannot be read is no failure of the training; it is tried again.
        """
        try:
            pod = self._first_node()
            if pod is None:
                return
            if pod.metadata.uid != self._pod:
                self._pod, self._last = pod.metadata.uid, ("", "")
            for line in self._lines(pod.metadata.name, follow=follow):
                self._show(line)
        except (client.ApiException, urllib3.exceptions.HTTPError) as error:
            forbidden = isinstance(error, client.ApiException) and error.status in (401, 403)
            if forbidden and not self._told:
                self._told = True
                say(f"the log of {self._name} cannot be shown, this account needs pods/log: {message(error)}")

    def _lines(self, pod: str, *, follow: bool) -> Iterable[str]:
        """Lines with their times, from where the last one was shown."""
        read = self._cluster.core.read_namespaced_pod_log
        since = {"since_seconds": int(time.monotonic() - self._heard) + SLACK_SECONDS}
        options: dict[str, Any] = {
            "container": CONTAINER,
            "timestamps": True,
            "_request_timeout": (CONNECT_SECONDS, self._cluster.pace.watch),
            # Not by the time of the last line: the node's clock may differ from this machine's.
            **({"tail_lines": FIRST_LINES} if self._last == ("", "") else since),
        }
        if not follow:
            text: str = read(pod, self._cluster.namespace, **options)
            return text.splitlines()
        lines: Iterable[str] = watch.Watch().stream(read, pod, self._cluster.namespace, **options)
        return lines

    def _first_node(self) -> Any:
        """The newest pod of rank 0 whose container has begun, or None."""
        found = self._cluster.core.list_namespaced_pod(
            self._cluster.namespace,
            label_selector=f"{POD_OF_JOB}={self._name},{RANK}=0",
            _request_timeout=(CONNECT_SECONDS, self._cluster.pace.answer),
        ).items
        begun = [pod for pod in found if pod.status.phase in ("Running", "Succeeded", "Failed")]
        return max(begun, key=lambda pod: pod.metadata.creation_timestamp, default=None)

    def _show(self, line: str) -> None:
        stamp, _, text = line.partition(" ")
        moment = _moment(stamp)
        if moment <= self._last:
            return
        self._last, self._heard = moment, time.monotonic()
        self.tail.append(one_line(text))
        print(one_line(text), flush=True)


def _moment(stamp: str) -> tuple[str, str]:
    """A time of a log line, comparable: its fraction has as many digits as are not zero."""
    parts = re.match(r"([\d:T-]+)(?:\.(\d+))?", stamp)
    return (parts[1], (parts[2] or "").ljust(9, "0")) if parts else ("", "")


class End(NamedTuple):
    """How a pod's container ended."""

    when: datetime
    rank: str
    exit_code: int
    reason: str
    pod: str
    said: str


def ends(name: str, cluster: Cluster) -> list[End]:
    """The containers that ended with an error."""
    found = []
    listed = cluster.core.list_namespaced_pod
    try:
        pods = cluster.ask(
            "list the pods", listed, cluster.namespace, label_selector=f"{POD_OF_JOB}={name}"
        ).items
    except client.ApiException as error:
        say(f"the pods of {name} cannot be listed: {message(error)}")
        return []
    for pod in pods:
        for status in pod.status.container_statuses or []:
            ended = status.state.terminated
            if status.name == CONTAINER and ended and ended.exit_code:
                rank = (pod.metadata.labels or {}).get(RANK, "?")
                when = ended.finished_at or datetime.max.replace(tzinfo=UTC)
                reason = ended.reason or ""
                found.append(End(when, rank, ended.exit_code, reason, pod.metadata.name, ended.message or ""))
    return found


def last_lines(end: End, cluster: Cluster) -> list[str]:
    """The end of a container's log, else what its status kept of it."""
    try:
        text: str = cluster.ask(
            f"give the log of {end.pod}",
            cluster.core.read_namespaced_pod_log,
            end.pod,
            cluster.namespace,
            container=CONTAINER,
            tail_lines=TAIL_LINES,
        )
    except (client.ApiException, ClusterError):
        text = end.said
    return [one_line(line) for line in (text or end.said).splitlines() if line.strip()][-TAIL_LINES:]
