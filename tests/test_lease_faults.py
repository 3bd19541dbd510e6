"""Leases on a store that fails, is slow, tells no time, or loses its answers."""

import threading
import time

import pytest

from limbeck.errors import LeaseError, StorageError
from limbeck.lease import Lease, held, live
from limbeck.manifest import commit, find
from limbeck.storage import Store
from tests.fault_proxy import FAULTS, fault_proxy
from tests.lease_process import manifest
from tests.leases import elsewhere, wait_until, written
from tests.memory_store import MemoryStore


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
