"""A TrainJob from its creation to its end, as a task without a GPU waits for it.

A launcher that is lost loses nothing: the next one finds the TrainJob by its name and goes on watching it.
"""

import time
from collections.abc import Iterator, Sequence

import urllib3
from kubernetes import client, watch

from limbeck.cluster_api import CONNECT_SECONDS, TRY_AGAIN, Cluster, refused, retry_after
from limbeck.errors import CanceledError, ClusterError, EngineError, LimbeckError
from limbeck.pod_log import Relay, ends, last_lines
from limbeck.progress import say
from limbeck.trainjob import (
    GROUP,
    PLURAL,
    RUN_LABEL,
    VERSION,
    State,
    TrainJob,
    adoption,
    manifest,
    read_state,
)

GONE = 410
MAX_CAUSE = 800


def train(job: TrainJob, cluster: Cluster) -> None:
    """Have a training done by a TrainJob; return when it is complete.

    There is no limit of time: a queue may hold it for a day. The log of its first node appears here.

    Raises:
        ClusterError: when the API refuses, is away for too long, or the name is taken by something else.
        CanceledError: when somebody deletes the TrainJob.
        LimbeckError: when the training fails, with the last lines of the node that failed first.
    """
    _start(job, cluster)
    with Relay(job.name, cluster) as relay:
        state = _follow(job, cluster)
    if state.failure:
        raise _failure(job, state, cluster, relay.tail)
    say(f"{job.stage}: TrainJob {job.name} is complete")


def cancel(cluster: Cluster, run: str) -> int:
    """Delete the TrainJobs that belong to a run; how many there were.

    Args:
        cluster: Where.
        run: The uid of the run's Workflow.

    Raises:
        ClusterError: when the API refuses, or is away for too long.
    """
    try:
        found = cluster.ask(
            "list TrainJobs",
            cluster.objects.list_namespaced_custom_object,
            *_place(cluster),
            label_selector=f"{RUN_LABEL}={run}",
        )
        for item in found["items"]:
            _delete(cluster, item["metadata"]["name"])
    except client.ApiException as error:
        raise refused(error, "TrainJobs", "list and delete trainjobs") from error
    return len(found["items"])


def _place(cluster: Cluster) -> tuple[str, str, str, str]:
    return GROUP, VERSION, cluster.namespace, PLURAL


def _start(job: TrainJob, cluster: Cluster) -> None:
    """Create the TrainJob, or take over the one of an earlier attempt."""
    while True:
        try:
            create = cluster.objects.create_namespaced_custom_object
            cluster.ask(f"create TrainJob {job.name}", create, *_place(cluster), manifest(job))
        except client.ApiException as error:
            if error.status != 409:
                raise refused(error, f"TrainJob {job.name}", "create trainjobs") from error
        else:
            size = f"{job.nodes} nodes with {job.processes} processes each"
            say(f"{job.stage}: TrainJob {job.name} created, {size}")
            return
        found, _ = _look(job.name, cluster)
        if found is None:
            continue  # it went away meanwhile
        if found.digest != job.digest:
            raise ClusterError(
                "a TrainJob of this name trains something else",
                where=f"namespace {cluster.namespace}, TrainJob {job.name}",
                expected=f"digest {job.digest[:16]}",
                got=found.digest[:16] or "none",
                remedy="Look who made it, and delete it",
            )
        if found.deleting:
            time.sleep(cluster.pace.first_wait)
        elif found.failure:
            say(f"{job.stage}: TrainJob {job.name} of an earlier attempt has failed; it is made anew")
            _delete(cluster, job.name)
        elif found.ended:
            return
        elif _adopt(job, cluster):
            say(f"{job.stage}: TrainJob {job.name} of an earlier attempt is there; going on with it")
            return


def _adopt(job: TrainJob, cluster: Cluster) -> bool:
    """Make a TrainJob one of this run; whether it is still there."""
    patch = cluster.objects.patch_namespaced_custom_object
    try:
        cluster.ask(f"take over {job.name}", patch, *_place(cluster), job.name, adoption(job))
    except client.ApiException as error:
        if error.status == 404:
            return False
        raise refused(error, f"TrainJob {job.name}", "patch trainjobs") from error
    return True


def _delete(cluster: Cluster, name: str) -> None:
    """Ask for a TrainJob's end; one that is gone is fine."""
    try:
        delete = cluster.objects.delete_namespaced_custom_object
        cluster.ask(f"delete TrainJob {name}", delete, *_place(cluster), name)
    except client.ApiException as error:
        if error.status != 404:
            raise refused(error, f"TrainJob {name}", "delete trainjobs") from error


def _look(name: str, cluster: Cluster) -> tuple[State | None, str]:
    """What is known of a TrainJob, None if it is gone; and the version from which a watch goes on.

    By a list, for its version is of now: that of an object may be too old to be watched from.
    """
    try:
        found = cluster.ask(
            f"give TrainJob {name}",
            cluster.objects.list_namespaced_custom_object,
            *_place(cluster),
            field_selector=f"metadata.name={name}",
        )
    except client.ApiException as error:
        raise refused(error, f"TrainJob {name}", "list trainjobs") from error
    items = found["items"]
    return read_state(items[0]) if items else None, found["metadata"]["resourceVersion"]


def _follow(job: TrainJob, cluster: Cluster) -> State:
    """Wait for the end, and tell what is waited for."""
    told, when = "", 0.0
    for state in _states(job.name, cluster):
        if state is None:
            raise CanceledError(
                "the TrainJob was deleted",
                where=f"{job.stage}, TrainJob {job.name}",
                remedy="Run it again: it goes on with what is stored",
            )
        if state.ended:
            return state
        now = time.monotonic()
        if state.waiting and (state.waiting != told or now - when > cluster.pace.tell):
            say(f"{job.stage}: TrainJob {job.name} waits {state.waiting}")
            when = now
        elif told and not state.waiting:
            say(f"{job.stage}: all {state.nodes} nodes of TrainJob {job.name} are up")
        told = state.waiting
    raise AssertionError  # _states has no end


def _states(name: str, cluster: Cluster) -> Iterator[State | None]:
    """The TrainJob now and after each change, for ever; None when it is gone.

    A watch that breaks, expires (410) or is refused for a while is begun anew from a list.
    """
    failures = 0
    while True:
        state, version = _look(name, cluster)
        yield state
        try:
            for event in watch.Watch().stream(
                cluster.objects.list_namespaced_custom_object,
                *_place(cluster),
                field_selector=f"metadata.name={name}",
                resource_version=version,
                timeout_seconds=max(1, int(cluster.pace.watch)),
                _request_timeout=(CONNECT_SECONDS, cluster.pace.watch + CONNECT_SECONDS),
            ):
                failures = 0
                if event["type"] in ("ADDED", "MODIFIED"):
                    yield read_state(event["object"])
                elif event["type"] == "DELETED":
                    yield None
        except (client.ApiException, urllib3.exceptions.HTTPError, ValueError) as error:
            status = getattr(error, "status", None)
            if isinstance(error, client.ApiException) and status not in (GONE, *TRY_AGAIN):
                raise refused(error, f"TrainJob {name}", "watch trainjobs") from error
            failures = 0 if status == GONE else failures + 1
            pause = max(cluster.pace.first_wait * 2**failures, retry_after(error))
            time.sleep(min(pause, cluster.pace.longest_wait))


def _failure(job: TrainJob, state: State, cluster: Cluster, tail: Sequence[str]) -> LimbeckError:
    """What ended the training: the first node that failed drags the others along, so it is the cause."""
    found = ends(job.name, cluster)
    if not found:
        lines, where, code = list(tail), "its pods are gone; the log of node 0 ended with", 0
    else:
        first = min(found)
        lines = last_lines(first, cluster) or list(tail)
        reason = f" ({first.reason})" if first.reason not in ("", "Error") else ""
        where = f"node {first.rank} ended with exit code {first.exit_code}{reason}; its last lines"
        code = first.exit_code
        for line in lines:
            say(f"{job.stage}: node {first.rank}: {line.removeprefix('limbeck: ')}")
    known = {kind.exit_code for kind in LimbeckError.__subclasses__()}
    error = EngineError(
        f"{job.stage}: TrainJob {job.name} failed ({state.failure}): {where}",
        got=" | ".join(lines)[-MAX_CAUSE:] or "nothing",
        remedy="Mend it and run it again: it goes on with what is stored",
    )
    if code in known:
        error.exit_code = code
    return error
