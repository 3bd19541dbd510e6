"""The launcher of TrainJobs against a stub of the Kubernetes API: what it asks, shows, takes over, raises."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest

from limbeck.cluster_api import Cluster, Pace, connect
from limbeck.errors import CanceledError, ClusterError, GateError, LimbeckError
from limbeck.launcher import cancel, train
from limbeck.resources import StageRequest
from limbeck.trainjob import RUN_LABEL, Owner, TrainJob, TrainJobSettings, manifest
from tests import kube_stub
from tests.kube_stub import JOBS, LIST, NAMESPACE, PODS, WATCH, Fault, Stub

PACE = Pace(first_wait=0.01, longest_wait=0.05, poll=0.01, patience=1.0, answer=5.0, watch=60.0, tell=30.0)
JOB = TrainJob(
    stage="sft",
    digest="0123456789abcdef" * 4,
    spec_uri="s3://b/work/train-jobs/limbeck-sft-0123456789abcdef.json",
    image="registry.invalid/limbeck-train@sha256:" + "0" * 64,
    nodes=2,
    processes=8,
    request=StageRequest(cpu="8", memory="64Gi", gpus=8),
    settings=TrainJobSettings(),
    owner=Owner("run-of-today", "uid-of-today"),
)
NAME = JOB.name
LOG = f"{PODS}/{NAME}-node-0-0/log"


@pytest.fixture
def stub() -> Iterator[Stub]:
    with kube_stub.serve() as served:
        yield served


def reach(stub: Stub, pace: Pace = PACE) -> Cluster:
    return connect(stub.url, NAMESPACE, pace=pace)


@contextmanager
def training(stub: Stub, job: TrainJob = JOB, pace: Pace = PACE) -> Iterator[Future[None]]:
    """The launcher at work, while the block plays the controller."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(train, job, reach(stub, pace))


def begun(stub: Stub) -> None:
    """Both nodes are up."""
    stub.wait_for("GET", WATCH)
    for rank in (0, 1):
        stub.pod(NAME, rank)
    stub.update(NAME, ready=1)


def finish(stub: Stub) -> None:
    """Both nodes have ended well."""
    for rank in (0, 1):
        stub.pod(NAME, rank, phase="Succeeded", exit_code=0)
    stub.update(NAME, complete="all jobs completed")


def test_a_trainjob_is_created_its_log_shown_and_its_end_awaited(
    stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    job = replace(JOB, settings=TrainJobSettings(queue="gpus", priority_class="limbeck-batch"))
    with training(stub, job) as done:
        stub.wait_for("GET", WATCH)
        stub.update(NAME, suspend=False)
        begun(stub)
        stub.log(f"{NAME}-node-0-0", "limbeck: sft: 1/2 steps", "\x1b[2Jraw")
        stub.wait_for("GET", rf"{LOG}\?.*follow=True")
        stub.log(f"{NAME}-node-0-0", "limbeck: sft: 2/2 steps")
        finish(stub)
        done.result(timeout=30)
    (created,) = stub.asked("POST", JOBS)
    assert created.body == manifest(job)
    assert capsys.readouterr().out.splitlines() == [
        f"limbeck: sft: TrainJob {NAME} created, 2 nodes with 8 processes each",
        f"limbeck: sft: TrainJob {NAME} waits in queue gpus until there is room",
        f"limbeck: sft: TrainJob {NAME} waits until all of its 2 nodes are up",
        f"limbeck: sft: all 2 nodes of TrainJob {NAME} are up",
        "limbeck: sft: 1/2 steps",
        "[2Jraw",
        "limbeck: sft: 2/2 steps",
        f"limbeck: sft: TrainJob {NAME} is complete",
    ]


FAULTS = {
    "too many requests, with a time to wait": [Fault("POST", JOBS, 429, 2, headers={"Retry-After": "1"})],
    "an API server that is broken": [Fault("POST", JOBS, 500, 2), Fault("GET", LIST, 503, 3)],
    "a connection that drops before the TrainJob is made": [Fault("POST", JOBS)],
    "a connection that drops when it is made": [Fault("POST", JOBS, done_first=True)],
    "a watch that is refused for a while": [Fault("GET", WATCH, 500, 2), Fault("GET", WATCH, 429, 1)],
    "a watch that drops before any event": [Fault("GET", WATCH, times=3)],
    "a watch that drops in the middle of an event": [Fault("GET", WATCH, after=1)],
    "a watch that is gone as it begins": [Fault("GET", WATCH, 410, 2)],
    "pods that cannot be listed for a while": [
        Fault("GET", rf"{PODS}\?", 500, 3),
        Fault("GET", rf"{PODS}\?"),
    ],
    "a log that drops in the middle of a line": [Fault("GET", rf"{LOG}\?.*follow", after=1, times=3)],
    "a log that is not there yet": [Fault("GET", rf"{LOG}\?.*follow", 400, 2)],
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_a_training_ends_well_and_each_line_is_shown_once_in_spite_of(
    stub: Stub, capsys: pytest.CaptureFixture[str], faults: list[Fault]
) -> None:
    stub.faults += [replace(fault) for fault in faults]
    lines = [f"limbeck: sft: {step}/12 steps" for step in range(1, 13)]
    with training(stub) as done:
        begun(stub)
        stub.log(f"{NAME}-node-0-0", *lines[:6])
        stub.wait_for("GET", rf"{LOG}\?")
        stub.log(f"{NAME}-node-0-0", *lines[6:])
        stub.wait_for_faults()
        finish(stub)
        done.result(timeout=30)
    assert [line for line in capsys.readouterr().out.splitlines() if "steps" in line] == lines
    assert len(stub.jobs) == 1


def test_a_watch_from_too_long_ago_begins_anew(stub: Stub) -> None:
    with training(stub, pace=PACE._replace(watch=1.0)) as done:
        begun(stub)
        stub.oldest = stub.version + 10  # this watch still runs; the next one is refused with 410
        stub.wait_for("GET", WATCH, times=3)
        stub.oldest = 0
        finish(stub)
        done.result(timeout=30)


def left(stub: Stub, digest: str = JOB.digest, *, complete: str = "", failed: str = "") -> None:
    """The TrainJob of an earlier run is there."""
    earlier = replace(JOB, owner=Owner("run-of-yesterday", "uid-of-yesterday"))
    stub.jobs[NAME] = manifest(earlier)
    stub.jobs[NAME]["metadata"]["annotations"]["limbeck/digest"] = digest
    stub.update(NAME, ready=1, complete=complete, failed=failed)


def test_the_running_trainjob_of_an_earlier_attempt_is_taken_over(
    stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    left(stub)
    with training(stub) as done:
        stub.wait_for("GET", WATCH)
        finish(stub)
        done.result(timeout=30)
    metadata = stub.jobs[NAME]["metadata"]
    assert metadata["labels"][RUN_LABEL] == "uid-of-today"
    assert [owner["uid"] for owner in metadata["ownerReferences"]] == ["uid-of-today"]
    assert "of an earlier attempt is there; going on with it" in capsys.readouterr().out
    assert not stub.asked("DELETE", JOBS)


def test_the_complete_trainjob_of_an_earlier_attempt_is_taken_as_it_is(stub: Stub) -> None:
    left(stub, complete="all jobs completed")
    train(JOB, reach(stub))
    assert {request.method for request in stub.requests} == {"POST", "GET"}


def test_the_failed_trainjob_of_an_earlier_attempt_is_made_anew(stub: Stub) -> None:
    left(stub, failed="a node was lost")
    with training(stub) as done:
        stub.wait_for("GET", WATCH)
        assert stub.jobs[NAME]["metadata"]["labels"][RUN_LABEL] == "uid-of-today"
        finish(stub)
        done.result(timeout=30)
    assert len(stub.asked("DELETE", JOBS)) == 1


def test_a_trainjob_that_is_being_deleted_is_waited_for(stub: Stub) -> None:
    left(stub)
    stub.jobs[NAME]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    with training(stub) as done:
        stub.wait_for("POST", JOBS, times=2)
        stub.remove(NAME)
        stub.wait_for("GET", WATCH)
        finish(stub)
        done.result(timeout=30)
    assert "deletionTimestamp" not in stub.jobs[NAME]["metadata"]


def test_a_trainjob_of_the_same_name_for_something_else_is_left_alone(stub: Stub) -> None:
    left(stub, digest="f" * 64)
    with pytest.raises(
        ClusterError, match=r"trains something else .*expected digest 0123456789abcdef, got ffff"
    ):
        train(JOB, reach(stub))
    assert not stub.asked("DELETE", JOBS)


def fails(stub: Stub, play: Callable[[], None]) -> LimbeckError:
    with training(stub) as done:
        begun(stub)
        play()
        with pytest.raises(LimbeckError) as error:
            done.result(timeout=30)
    return error.value


def test_a_failure_is_raised_with_the_last_lines_of_the_node_that_failed_first(stub: Stub) -> None:
    def play() -> None:
        stub.pod(NAME, 0, phase="Failed", exit_code=5, finishedAt="2026-01-01T00:00:09Z")
        stub.pod(NAME, 1, phase="Failed", exit_code=6, finishedAt="2026-01-01T00:00:08Z")
        stub.log(f"{NAME}-node-0-0", "limbeck: error 5: the other node is gone")
        stub.log(f"{NAME}-node-0-1", "limbeck: sft: 7/9 steps", "limbeck: error 6: too weak for PPO")
        stub.update(NAME, failed="job failed")

    error = fails(stub, play)
    assert error.exit_code == GateError.exit_code
    assert "(JobSet: job failed): node 1 ended with exit code 6; its last lines: got" in str(error)
    assert "too weak for PPO" in str(error)
    assert "the other node is gone" not in str(error)


def test_a_node_that_was_killed_says_so_without_a_log(stub: Stub) -> None:
    def play() -> None:
        stub.faults.append(Fault("GET", f"{PODS}/.*/log", 404, times=9))
        stub.pod(NAME, 0)
        stub.pod(NAME, 1, phase="Failed", exit_code=137, reason="OOMKilled", message="last words\n")
        stub.update(NAME, failed="job failed")

    error = fails(stub, play)
    assert error.exit_code == 5
    assert "node 1 ended with exit code 137 (OOMKilled); its last lines: got last words" in str(error)


def test_of_pods_that_are_gone_the_log_that_was_shown_is_the_witness(stub: Stub) -> None:
    def play() -> None:
        stub.log(f"{NAME}-node-0-0", "limbeck: sft: 7/9 steps")
        stub.wait_for("GET", rf"{LOG}\?")
        stub.pods.clear()
        stub.update(NAME, failed="job failed")

    assert "the log of node 0 ended with: got limbeck: sft: 7/9 steps" in str(fails(stub, play))


def test_a_trainjob_that_somebody_deletes_is_a_cancelled_run(stub: Stub) -> None:
    error = fails(stub, lambda: stub.remove(NAME))
    assert isinstance(error, CanceledError)


def test_a_missing_right_names_its_remedy(stub: Stub) -> None:
    stub.faults.append(Fault("POST", JOBS, 403))
    with pytest.raises(ClusterError, match=r"got 403 not now.*right to create trainjobs: apply manifests"):
        train(JOB, reach(stub))


def test_an_api_that_is_away_for_too_long_is_given_up(stub: Stub) -> None:
    stub.faults.append(Fault("POST", JOBS, 503, times=1000))
    with pytest.raises(ClusterError, match=r"away for too long in create TrainJob"):
        train(JOB, reach(stub, PACE._replace(patience=0.1)))
    assert len(stub.requests) > 2


def test_the_end_of_a_run_deletes_its_trainjobs_and_no_others(stub: Stub) -> None:
    with training(stub) as done:
        begun(stub)
        other = replace(JOB, digest="f" * 64, owner=Owner("another", "uid-of-another"))
        stub.jobs[other.name] = manifest(other)
        assert cancel(reach(stub), "uid-of-today") == 1
        with pytest.raises(CanceledError):
            done.result(timeout=30)
    assert list(stub.jobs) == [other.name]
