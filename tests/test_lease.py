"""Two attempts of one stage never mix: real processes, killed and paused, against a real server."""

import os
import signal
import socket
import threading
import time

import pytest

from limbeck import lease
from limbeck.errors import LeaseError
from limbeck.lease import Lease, held, live
from limbeck.manifest import commit, find
from limbeck.storage import Store
from tests.lease_process import Attempt, manifest
from tests.leases import elsewhere, wait_until, written


def holding(uri: str, ttl_seconds: float) -> Attempt:
    attempt = Attempt(uri, ttl_seconds)
    assert attempt.answer() == "ready"
    assert attempt.answer() == "held"
    return attempt


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


def test_of_eight_attempts_one_holds_the_lease(store: Store, work_uri: str) -> None:
    attempts = [Attempt(work_uri, 60, hold=False) for _ in range(8)]
    assert [attempt.answer() for attempt in attempts] == ["ready"] * 8
    for attempt in attempts:
        attempt.send("hold")
    answers = [attempt.answer() for attempt in attempts]
    winners = [attempt for attempt, said in zip(attempts, answers, strict=True) if said == "held"]
    assert len(winners) == 1, answers
    assert winners[0].do("check") == "check done"
    winners[0].send("end")
    codes = [attempt.end()[0] for attempt in attempts]
    assert sorted(codes) == [0] + [9] * 7


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
