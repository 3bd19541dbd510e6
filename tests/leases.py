"""What the tests of leases share: holders elsewhere, and what lies in the store."""

import time
from collections.abc import Callable

from limbeck.lease import Lease
from limbeck.storage import Store

PATIENCE_SECONDS = 60.0


def wait_until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not ready():
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.02)


def elsewhere(store: Store, uri: str, ttl_seconds: float, **values: object) -> str:
    """Write the lease of a holder on another machine; gives its ETag."""
    usual = {"token": "x", "name": "generate(teacher)", "host": "node-7", "pid": 41, "since": "noon"}
    there = Lease.model_validate({**usual, "ttl_seconds": ttl_seconds, **values})
    etag = store.write_new(f"{uri}/lease.json", there.model_dump_json().encode())
    assert etag
    return etag


def written(store: Store, uri: str) -> Lease:
    return Lease.model_validate_json(store.read_bytes(f"{uri}/lease.json"))
