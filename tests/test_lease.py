"""Two attempts of one stage never mix: real processes, killed and paused, against a real server."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import ANY

import pytest

from limbeck import lease
from limbeck.config import Config
from limbeck.errors import LeaseError, StorageError
from limbeck.lease import Lease, held, live
from limbeck.manifest import commit, find
from limbeck.stages.prepare import Prepared
from limbeck.stages.prepare import run as prepare
from limbeck.storage import Store
from tests.fault_proxy import FAULTS, fault_proxy
from tests.lease_process import Attempt, manifest
from tests.memory_store import MemoryStore

PATIENCE_SECONDS = 60.0


def wait_until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not ready():
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.02)


def holding(uri: str, ttl_seconds: float) -> Attempt:
    attempt = Attempt(uri, ttl_seconds)
    assert attempt.answer() == "ready"
    assert attempt.answer() == "held"
    return attempt


def elsewhere(store: Store, uri: str, ttl_seconds: float, **values: object) -> str:
    """Write the lease of a holder on another machine; gives its ETag."""
    usual = {"token": "x", "name": "generate(teacher)", "host": "node-7", "pid": 41, "since": "noon"}
    there = Lease.model_validate({**usual, "ttl_seconds": ttl_seconds, **values})
    etag = store.write_new(f"{uri}/lease.json", there.model_dump_json().encode())
    assert etag
    return etag


def written(store: Store, uri: str) -> Lease:
    return Lease.model_validate_json(store.read_bytes(f"{uri}/lease.json"))


def test_a_second_attempt_stops_at_once_and_says_who_is_at_work(store: Store, work_uri: str) -> None:
    first = holding(work_uri, 600)  # renewed every 200 s
    started = time.monotonic()
    code, output = Attempt(work_uri, 600).end()
    assert time.monotonic() - started < 60
    assert code == 9
    assert f"error 9: another attempt of the same stage is at work in {work_uri}/lease.json" in output
    assert f"got attempt, process {first.process.pid} on {socket.gethostname()} since 20" in output
    assert "Wait for it, or stop it and run again; if it dies, its lease ends after 600 s" in output
    assert first.do("check") == "check done"
    first.send("end")
    assert first.end()[0] == 0


def test_the_lease_of_a_killed_process_of_this_machine_is_taken_without_waiting(
    store: Store, work_uri: str
) -> None:
    first = holding(work_uri, 600)
    first.process.kill()
    # Not reaped: a zombie does nothing any more.
    wait_until(lambda: os.waitid(os.P_PID, first.process.pid, os.WEXITED | os.WNOWAIT) is not None)
    second = Attempt(work_uri, 600)
    assert second.answer() == "ready"
    assert f"takes over from attempt, process {first.process.pid} on" in second.answer()
    assert second.answer() == "held"
    second.send("end")
    assert second.end()[0] == 0
    first.end()


def test_a_pid_that_another_process_has_by_now_is_no_sign_of_life(store: Store, work_uri: str) -> None:
    with held(store, work_uri, "first"):
        mine = written(store, work_uri)
    elsewhere(
        store, f"{work_uri}/x", 600, host=mine.host, machine=mine.machine, pid=os.getpid(), pid_started="1"
    )
    with held(store, f"{work_uri}/x", "second", 600):
        assert written(store, f"{work_uri}/x").name == "second"


def test_the_lease_of_a_silent_holder_elsewhere_is_waited_for_and_taken(
    store: Store, work_uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere(store, work_uri, 1)
    with held(store, work_uri, "second", 1):
        assert written(store, work_uri).name == "second"
    said = capsys.readouterr().out
    assert "second: waits up to 1 s for a sign of generate(teacher), process 41 on node-7 since noon" in said
    assert "second: takes over from generate(teacher)" in said


def test_a_lease_that_is_over_by_the_stores_clock_is_taken_at_once(
    store: Store, work_uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere(store, work_uri, 2)
    assert live(store, work_uri) is not None
    wait_until(lambda: live(store, work_uri) is None)
    with held(store, work_uri, "second"):
        assert "waits" not in capsys.readouterr().out


@pytest.mark.parametrize("machine", ["", "another boot pid:[4026531836]"], ids=["no machine", "another"])
def test_a_holder_elsewhere_that_renews_keeps_its_lease(store: Store, work_uri: str, machine: str) -> None:
    """No process of this machine is asked for: one with the same number would say nothing of it."""
    etag, ended = elsewhere(store, work_uri, 3, machine=machine, pid_started="1"), threading.Event()

    def renew() -> None:
        current, number = etag, 0
        while not ended.wait(0.5):
            number += 1
            there = written(store, work_uri).model_copy(update={"renewals": number})
            new = store.replace(f"{work_uri}/lease.json", there.model_dump_json().encode(), current)
            assert new
            current = new

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with (
            pytest.raises(LeaseError, match=r"is at work in .*got generate\(teacher\), process 41 on node-7"),
            held(store, work_uri, "second"),
        ):
            pass
    finally:
        ended.set()
        thread.join()


def test_who_waits_is_told_that_the_stage_was_finished_meanwhile(store: Store, work_uri: str) -> None:
    etag = elsewhere(store, work_uri, 30)
    done = written(store, work_uri).model_copy(update={"state": "finished"}).model_dump_json().encode()
    timer = threading.Timer(0.5, lambda: store.replace(f"{work_uri}/lease.json", done, etag))
    timer.start()
    with (
        pytest.raises(LeaseError, match=r"has just finished it .*Run again: it will be found complete"),
        held(store, work_uri, "second"),
    ):
        pass
    timer.join()


def test_a_paused_attempt_that_was_replaced_cannot_commit(store: Store, work_uri: str) -> None:
    first = holding(work_uri, 1)
    first.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: live(store, work_uri) is None)
    with held(store, work_uri, "second", 30) as second:
        first.process.send_signal(signal.SIGCONT)
        first.send("commit theirs")
        code, output = first.end()
        assert code == 9, output
        assert "error 9: attempt lost its lease to another attempt of the same stage" in output
        assert f"got second, process {os.getpid()} on" in output
        assert find(store, work_uri) is None
        ours = commit(store, manifest(work_uri, "ours"), second)
    assert find(store, work_uri) == ours


def test_a_paused_attempt_that_nobody_replaced_goes_on(store: Store, work_uri: str) -> None:
    first = holding(work_uri, 1)
    first.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: live(store, work_uri) is None)
    first.process.send_signal(signal.SIGCONT)
    assert first.do("check") == "check done"
    assert first.do("commit theirs") == "commit done"
    first.send("end")
    assert first.end()[0] == 0


def test_a_lost_lease_is_noticed_between_two_pieces_of_work(store: Store, work_uri: str) -> None:
    with held(store, work_uri, "first", 0.6) as first:
        first.check()
        store.write_bytes(f"{work_uri}/lease.json", Lease(name="thief", token="y").model_dump_json().encode())

        def works() -> bool:
            first.check()
            return False

        with pytest.raises(LeaseError, match=r"first lost its lease .* got thief, process 0"):
            wait_until(works)
    assert written(store, work_uri).name == "thief"
    assert written(store, work_uri).state == "held"


def test_before_what_cannot_be_taken_back_the_store_is_asked(store: Store, work_uri: str) -> None:
    with held(store, work_uri, "first", 600) as first:
        store.write_bytes(f"{work_uri}/lease.json", Lease(name="thief", token="y").model_dump_json().encode())
        first.check()  # no renewal has told it yet
        with pytest.raises(LeaseError, match=r"first lost its lease .* got thief, process 0"):
            commit(store, manifest(work_uri, "ours"), first)
    assert find(store, work_uri) is None


def test_a_holder_renews_for_as_long_as_it_works(store: Store, work_uri: str) -> None:
    with held(store, work_uri, "first", 1.5) as first:
        wait_until(lambda: written(store, work_uri).renewals >= 4)
        first.check()
        assert live(store, work_uri) is not None


def test_of_sixteen_attempts_one_holds_the_lease(store: Store, work_uri: str) -> None:
    attempts = [Attempt(work_uri, 60, hold=False) for _ in range(16)]
    assert [attempt.answer() for attempt in attempts] == ["ready"] * 16
    for attempt in attempts:
        attempt.send("hold")
    answers = [attempt.answer() for attempt in attempts]
    winners = [attempt for attempt, said in zip(attempts, answers, strict=True) if said == "held"]
    assert len(winners) == 1, answers
    assert winners[0].do("check") == "check done"
    winners[0].send("end")
    codes = [attempt.end()[0] for attempt in attempts]
    assert sorted(codes) == [0] + [9] * 15


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"ttl_seconds": 1e9}'])
def test_what_is_no_lease_counts_as_one_of_an_unknown_holder(
    store: Store, work_uri: str, content: bytes
) -> None:
    store.write_bytes(f"{work_uri}/lease.json", content)
    found = live(store, work_uri)
    assert found is not None
    assert found.ttl_seconds == lease.TTL_SECONDS


def test_an_ended_attempt_gives_the_lease_back_and_says_whether_it_finished(
    store: Store, work_uri: str
) -> None:
    with pytest.raises(ZeroDivisionError), held(store, work_uri, "first"):
        raise ZeroDivisionError
    assert written(store, work_uri).state == "released"
    assert live(store, work_uri) is None
    with held(store, work_uri, "second") as second:
        commit(store, manifest(work_uri, "done"), second)
    second.confirm()
    assert written(store, work_uri).state == "finished", "a late renewal took it back"


def test_no_work_goes_on_under_a_lease_that_is_over_while_the_store_is_away(
    store: Store, work_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fault_proxy(str(store.endpoint), 0, 0.0, FAULTS) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with held(Store(1), work_uri, "first", 1) as first:
            first.check()
            proxy.is_down.set()

            def works() -> bool:
                first.check()
                return False

            with pytest.raises(StorageError, match=r"a transfer failed in .*/lease\.json"):
                wait_until(works)
            proxy.is_down.clear()
            first.check()
            renewals = written(store, work_uri).renewals
            wait_until(lambda: written(store, work_uri).renewals > renewals)


class Timeless(MemoryStore):
    """A store that does not tell the time."""

    def age(self, uri: str) -> float | None:
        return None


def test_where_the_store_tells_no_time_the_patience_of_who_waits_decides() -> None:
    store = Timeless()
    elsewhere(store, "s3://b/x", 0.3)
    with held(store, "s3://b/x", "second"):
        assert written(store, "s3://b/x").name == "second"


class Taken(MemoryStore):
    """A store in which another attempt takes a lease between the first look at it and what is done then."""

    def read_tagged(self, uri: str) -> tuple[bytes, str] | None:
        found = super().read_tagged(uri)
        if found and Lease.model_validate_json(found[0]).name == "old":
            self.put(uri, Lease(name="faster", token="z").model_dump_json().encode())
        return found


def test_of_two_that_find_a_lease_over_at_the_same_time_one_takes_it() -> None:
    store = Taken()
    elsewhere(store, "s3://b/x", 600, name="old", state="released")
    with (
        pytest.raises(LeaseError, match=r"another attempt of the same stage is at work in .*got faster"),
        held(store, "s3://b/x", "slower"),
    ):
        pass
    assert written(store, "s3://b/x").name == "faster"


class Slow(MemoryStore):
    """A store whose conditional writes take longer than a lease lasts."""

    def __init__(self) -> None:
        super().__init__()
        self.asked_by: list[str] = []

    def replace(self, uri: str, data: bytes, etag: str) -> str | None:
        self.asked_by.append(threading.current_thread().name)
        time.sleep(0.4)
        return super().replace(uri, data, etag)


def test_a_lease_lasts_from_when_its_renewal_was_asked_for_and_not_from_the_answer() -> None:
    store = Slow()
    with held(store, "s3://b/x", "first", 0.3) as first:
        first.confirm()
        assert store.asked_by.count(threading.current_thread().name) == 2, "it was over when the answer came"


class LosesAnswers(Store):
    """A store whose answer to a conditional write is lost, and the client's own retry is refused."""

    def replace(self, uri: str, data: bytes, etag: str) -> str | None:
        super().replace(uri, data, etag)
        return super().replace(uri, data, etag)

    def write_new(self, uri: str, data: bytes) -> str | None:
        super().write_new(uri, data)
        return super().write_new(uri, data)


def test_the_echo_of_its_own_write_is_no_loss(store: Store, work_uri: str) -> None:
    lossy = LosesAnswers()
    with held(lossy, work_uri, "first") as first:
        first.confirm()
        commit(lossy, manifest(work_uri, "done"), first)
        first.confirm()
    assert written(store, work_uri).state == "finished"


@pytest.mark.parametrize("seed", [1, 2])
def test_a_lease_is_kept_where_one_request_in_five_fails(
    store: Store, work_uri: str, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    with fault_proxy(str(store.endpoint), seed, 0.2, FAULTS) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        client = Store(60)
        with held(client, work_uri, "first", 3) as first:
            for _ in range(30):
                first.confirm()
            made = commit(client, manifest(work_uri, "done"), first)
        assert sum(proxy.seen[fault] for fault in FAULTS) >= 3
    assert written(store, work_uri).state == "finished"
    assert find(store, work_uri) == made


def test_an_outage_longer_than_the_lease_is_no_loss_if_nobody_came(
    store: Store, work_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fault_proxy(str(store.endpoint), 0, 0.0, FAULTS) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with held(Store(60), work_uri, "first", 1) as first:
            proxy.is_down.set()
            wait_until(lambda: live(store, work_uri) is None)
            proxy.is_down.clear()
            first.check()
            commit(Store(60), manifest(work_uri, "done"), first)
    assert written(store, work_uri).state == "finished"


def test_the_same_content_twice_is_one_manifest(store: Store, work_uri: str) -> None:
    first = commit(store, manifest(work_uri, "same").model_copy(update={"wall_seconds": 1.0}))
    assert commit(store, manifest(work_uri, "same").model_copy(update={"wall_seconds": 2.0})) == first
    assert find(store, work_uri) == first


def test_another_content_is_refused_and_changes_nothing(store: Store, work_uri: str) -> None:
    first = commit(store, manifest(work_uri, "one"))
    with pytest.raises(LeaseError, match=r"has finished with another result in .*/manifest\.json"):
        commit(store, manifest(work_uri, "other"))
    assert find(store, work_uri) == first


def test_a_damaged_manifest_is_replaced(store: Store, work_uri: str) -> None:
    store.write_bytes(f"{work_uri}/manifest.json", b"{")
    made = commit(store, manifest(work_uri, "one"))
    assert find(store, work_uri) == made


def test_a_stage_stops_where_another_attempt_is_at_work(store: Store, work_uri: str, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("\n".join(json.dumps({"prompt": f"sum {n}"}) for n in range(40)))
    store.write_file(tmp_path / "data", f"{work_uri}/in/data.jsonl")

    def run() -> Prepared:
        return prepare(f"{work_uri}/in/data.jsonl", "", Config(), store, work_uri)

    made = run()
    root = made.prompts.uri.removesuffix("/prompts")
    assert written(store, root).state == "finished"
    store.delete([f"{item.uri}/manifest.json" for item in made])
    with (
        held(store, root, "the other"),
        pytest.raises(LeaseError, match=rf"is at work in {root}/lease\.json: got the other, process"),
    ):
        run()
    assert run().prompts == made.prompts.model_copy(update={"wall_seconds": ANY})
