"""What the kill matrix calls passed: another row, a curve that is off and an object too many are seen."""

import json
from collections.abc import Sequence

from limbeck.manifest import Manifest, commit
from limbeck.storage import Store
from tests.chaos.outcome import Made, difference, leftovers, read_made, restore


def made(store: Store, uri: str, stage: str, losses: Sequence[float]) -> Made:
    """A finished stage whose one object is its history."""
    lines = [json.dumps({f"{stage}/loss": loss}) for loss in losses]
    store.write_bytes(f"{uri}/history.jsonl", "\n".join(lines).encode())
    item = store.stored(f"{uri}/history.jsonl")
    assert item is not None
    manifest = Manifest(
        stage=stage,
        kind="test",
        name="test",
        uri=uri,
        objects=(item,),
        inputs={},
        config_hash="",
        code_version="",
    )
    commit(store, manifest)
    return read_made(store, uri)


def test_rows_must_be_the_same_and_curves_near(store: Store, work_uri: str) -> None:
    one = made(store, f"{work_uri}/one", "generate", [1.0])
    assert difference(one, made(store, f"{work_uri}/same", "generate", [1.0])) == ""
    assert difference(one, made(store, f"{work_uri}/other", "generate", [1.00001])) == "another test"
    assert difference(one, read_made(store, f"{work_uri}/nothing")) == "no manifest"
    curve = made(store, f"{work_uri}/curve", "reward", [1.0, 0.5])
    assert difference(curve, made(store, f"{work_uri}/near", "reward", [1.0, 0.50001])) == ""
    assert "reward/loss off" in difference(curve, made(store, f"{work_uri}/off", "reward", [1.0, 0.6]))
    assert difference(curve, made(store, f"{work_uri}/short", "reward", [1.0])) == "1 steps instead of 2"


def test_an_object_of_no_manifest_is_left_over(store: Store, work_uri: str) -> None:
    whole = made(store, f"{work_uri}/generate/k", "generate", [1.0])
    assert leftovers(store, work_uri) == []
    store.write_bytes(f"{work_uri}/generate/k/part-00009", b"orphan")
    assert leftovers(store, work_uri) == [f"{work_uri}/generate/k/part-00009"]
    restore(store, whole)
    assert leftovers(store, work_uri) == []
    assert read_made(store, whole.prefix) == whole
