"""A manifest is written once: the same content again changes nothing, another one is refused."""

import json
from pathlib import Path
from unittest.mock import ANY

import pytest

from limbeck.config import Config
from limbeck.errors import LeaseError
from limbeck.lease import held
from limbeck.manifest import commit, find
from limbeck.stages.prepare import Prepared
from limbeck.stages.prepare import run as prepare
from limbeck.storage import Store
from tests.lease_process import manifest
from tests.leases import written


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
