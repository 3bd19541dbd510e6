"""What stages leave in a store in memory: finished, unfinished, leased, saved, begun uploads."""

import json
from datetime import timedelta
from typing import Any

from limbeck.garbage import Found, Policy, find_garbage
from limbeck.gc import remove
from limbeck.lease import Lease
from limbeck.manifest import MANIFEST, Manifest
from limbeck.storage import StoredObject, Upload
from tests.memory_store import MemoryStore

WORK = "s3://b/work"
OLD, YOUNG = timedelta(days=30), timedelta(hours=1)


def stored(store: MemoryStore, uri: str, age: timedelta = timedelta(), data: bytes = b"data") -> StoredObject:
    store.put(uri, data, age)
    item = store.stored(uri)
    assert item
    return item


def finished(
    store: MemoryStore, uri: str, names: tuple[str, ...] = ("part-00000-00000000.parquet",), **values: Any
) -> Manifest:
    """A stage that has written its manifest."""
    usual = {
        "stage": uri.removeprefix(f"{WORK}/").split("/")[0], "kind": "rows", "name": "rows", "uri": uri,
        "objects": [stored(store, f"{uri}/{name}", OLD) for name in names], "inputs": {},
        "config_hash": "", "code_version": "",
    }  # fmt: skip
    made = Manifest.model_validate(usual | values)
    store.put(f"{uri}/{MANIFEST}", made.to_json().encode(), OLD)
    return made


def leased(store: MemoryStore, root: str, age: timedelta, state: str = "held") -> None:
    there = Lease.model_validate({"name": "sft", "host": "node-7", "state": state})
    store.put(f"{root}/lease.json", there.model_dump_json().encode(), age)


def saved(store: MemoryStore, uri: str, steps: tuple[int, ...], age: timedelta, latest: int) -> None:
    """Training states as `save_state` leaves them."""
    for step in steps:
        item = stored(store, f"{uri}/state/{step:08d}/aa/weights", age)
        if step == latest:
            pointer = {"step": step, "objects": [item.model_dump()]}
            store.put(f"{uri}/state/LATEST", json.dumps(pointer).encode(), age)


def addresses(found: Found) -> set[str]:
    return {item.uri.removeprefix(f"{WORK}/") for item in found.garbage}


def swept(store: MemoryStore, policy: Policy) -> Found:
    return remove(store, WORK, policy, find_garbage(store, WORK, policy))


def upload(store: MemoryStore, uri: str, age: timedelta) -> Upload:
    return Upload(uri, "id", store.now - age)
