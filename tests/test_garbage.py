"""What nothing refers to, and nothing else, is garbage: found in made-up stores."""

import json
from datetime import timedelta
from typing import Any

import pytest

from limbeck.checkpoints import identity
from limbeck.garbage import Policy, find_garbage
from limbeck.gc import remove
from limbeck.manifest import MANIFEST, digest, find
from limbeck.sources import folder_hash
from limbeck.storage import Upload
from tests.leftovers import OLD, WORK, YOUNG, addresses, finished, leased, saved, stored, swept, upload
from tests.memory_store import MemoryStore


def test_beside_a_manifest_what_it_does_not_list_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    finished(store, f"{WORK}/label/aa/labels")
    stored(store, f"{WORK}/label/aa/labels/part-00000-11111111.parquet")
    stored(store, f"{WORK}/label/aa/labels/deep/er")
    leased(store, f"{WORK}/label/aa", OLD, "finished")
    found = swept(store, Policy())
    assert {(item.uri.removeprefix(f"{WORK}/"), item.why) for item in found.garbage} == {
        ("label/aa/labels/part-00000-11111111.parquet", "not in the manifest"),
        ("label/aa/labels/deep/er", "not in the manifest"),
        ("label/aa/lease.json", "lease that is over"),
    }
    assert sorted(store.objects) == [
        f"{WORK}/label/aa/labels/manifest.json",
        f"{WORK}/label/aa/labels/part-00000-00000000.parquet",
    ]


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        (Policy(keep_states=0), set()),
        (Policy(), {"LATEST", "00000040"}),
        (Policy(keep_states=2), {"LATEST", "00000040", "00000020"}),
        (Policy(keep_states=9), {"LATEST", "00000040", "00000020", "00000010"}),
    ],
)
def test_beside_a_finished_checkpoint_the_newest_whole_states_stay(policy: Policy, left: set[str]) -> None:
    store, uri = MemoryStore(), f"{WORK}/ppo/aa"
    finished(store, uri, ("cc/model.safetensors",))
    saved(store, uri, (10, 20, 40, 60), YOUNG, latest=40)  # the upload of 60 was killed
    swept(store, policy)
    states = {name.removeprefix(f"{uri}/state/") for name in store.objects if "/state/" in name}
    assert {name.partition("/")[0] for name in states} == left
    assert find(store, uri) is not None


@pytest.mark.parametrize(
    ("age", "policy", "goes"),
    [
        (YOUNG, Policy(), set()),
        (OLD, Policy(), {"part-00000-00000000.parquet", "aa/weights"}),
        (YOUNG, Policy(older_than=timedelta()), {"part-00000-00000000.parquet", "aa/weights"}),
        (OLD, Policy(unfinished_states=True), {"part-00000-00000000.parquet", "aa/weights",
                                               "state/LATEST", "state/00000010/aa/weights"}),
        (YOUNG, Policy(unfinished_states=True), set()),
    ],
    ids=["young", "old", "no limit", "states too", "young states"],
)  # fmt: skip
def test_unfinished_work_has_an_age_limit_and_its_states_must_be_asked_for(
    age: timedelta, policy: Policy, goes: set[str]
) -> None:
    store, uri = MemoryStore(), f"{WORK}/sft/aa"
    for name in ("part-00000-00000000.parquet", "aa/weights"):
        stored(store, f"{uri}/{name}", age)
    saved(store, uri, (10,), age, latest=10)
    leased(store, uri, max(age, timedelta(minutes=5)), "released")
    before = {name for name in store.objects if not name.endswith("lease.json")}
    swept(store, policy)
    assert {name.removeprefix(f"{uri}/") for name in before - set(store.objects)} == goes


@pytest.mark.parametrize("output", ["ablation/aa/labels", "ablation/aa", "export/aa"])
def test_what_an_ablation_or_an_export_left_goes_as_that_of_other_stages_does(output: str) -> None:
    store, uri = MemoryStore(), f"{WORK}/{output}"
    finished(store, uri)
    stored(store, f"{uri}/part-00000-11111111.parquet", YOUNG)
    stored(store, f"{uri.replace('/aa', '/bb')}/part-00000-11111111.parquet", OLD)
    leased(store, f"{WORK}/{output.split('/', maxsplit=1)[0]}/aa", OLD, "finished")
    swept(store, Policy())
    assert sorted(store.objects) == [f"{uri}/manifest.json", f"{uri}/part-00000-00000000.parquet"]


def test_one_young_object_keeps_all_of_an_unfinished_stage() -> None:
    store = MemoryStore()
    stored(store, f"{WORK}/generate/aa/part-00000-00000000.parquet", OLD)
    stored(store, f"{WORK}/generate/aa/part-00001-00000000.parquet", YOUNG)
    assert not find_garbage(store, WORK, Policy()).garbage


def test_below_a_live_lease_nothing_goes_and_the_holder_is_named() -> None:
    store = MemoryStore()
    stored(store, f"{WORK}/generate/aa/part-00000-00000000.parquet", OLD)
    finished(store, f"{WORK}/prepare/bb/gold")
    stored(store, f"{WORK}/prepare/bb/gold/orphan", OLD)
    store.begun.append(upload(store, f"{WORK}/generate/aa/x", OLD))
    for root in ("generate/aa", "prepare/bb"):
        leased(store, f"{WORK}/{root}", timedelta(seconds=10))
    found = find_garbage(store, WORK, Policy(older_than=timedelta(), unfinished_states=True))
    assert not found.garbage
    assert "held by sft, process 0 on node-7" in found.kept[f"{WORK}/generate/aa"]


def test_a_lease_that_was_not_renewed_protects_nothing() -> None:
    store = MemoryStore()
    stored(store, f"{WORK}/generate/aa/part-00000-00000000.parquet", OLD)
    leased(store, f"{WORK}/generate/aa", timedelta(seconds=61))
    swept(store, Policy())
    assert not store.objects


def test_what_a_manifest_elsewhere_lists_stays() -> None:
    store = MemoryStore()
    item = stored(store, f"{WORK}/generate/aa/part-00000-00000000.parquet", OLD)
    finished(store, f"{WORK}/generate", (), objects=[item])  # where no stage writes it
    store.put(f"{WORK}/elsewhere/{MANIFEST}", b"{", OLD)
    assert not find_garbage(store, WORK, Policy()).garbage


@pytest.mark.parametrize("change", [{"schema_version": 99}, {"uri": "s3://b/copied/sft/aa"}, {"stage": 5}])
def test_beside_a_manifest_that_is_not_understood_nothing_goes(change: dict[str, Any]) -> None:
    store = MemoryStore()
    made = finished(store, f"{WORK}/sft/aa", ())
    store.put(f"{WORK}/sft/aa/{MANIFEST}", json.dumps(made.model_dump() | change).encode(), OLD)
    stored(store, f"{WORK}/sft/aa/other", OLD)
    assert not find_garbage(store, WORK, Policy()).garbage


def test_beside_a_manifest_that_lost_an_object_the_rest_counts_as_unfinished() -> None:
    store = MemoryStore()
    made = finished(store, f"{WORK}/sft/aa", ("one", "two"))
    stored(store, f"{WORK}/sft/aa/other", OLD)
    store.delete([made.objects[0].uri])
    assert addresses(find_garbage(store, WORK, Policy())) == {"sft/aa/other"}
    assert not find_garbage(store, WORK, Policy(older_than=timedelta(days=60))).garbage


def test_what_is_not_of_the_stages_stays_and_old_probes_go() -> None:
    store = MemoryStore()
    for name in ("demo/1.json", "inputs/aa/x.jsonl", "other/aa/part-00000-00000000.parquet", "sft/loose"):
        stored(store, f"{WORK}/{name}", OLD)
    stored(store, f"{WORK}/preflight/1234/small", OLD)
    stored(store, f"{WORK}/preflight/5678/small", YOUNG)
    assert addresses(find_garbage(store, WORK, Policy())) == {"preflight/1234/small"}


def test_old_uploads_are_taken_back() -> None:
    store = MemoryStore()
    made = finished(store, f"{WORK}/sft/aa")
    young = upload(store, f"{WORK}/sft/bb/x", YOUNG)
    # The second try of this upload succeeded.
    store.begun += [upload(store, made.objects[0].uri, OLD), young, upload(store, f"{WORK}/inputs/x/y", OLD)]
    found = swept(store, Policy())
    assert [item.why for item in found.garbage] == ["abandoned upload"] * 2
    assert store.begun == [young]
    assert find(store, f"{WORK}/sft/aa") == made


def test_an_upload_that_goes_on_between_the_two_looks_stays() -> None:
    store = MemoryStore()
    left = upload(store, f"{WORK}/sft/bb/x", OLD)
    store.begun.append(left)
    store.part_bytes[left] = 8
    found = find_garbage(store, WORK, Policy())
    assert [item.bytes for item in found.garbage] == [8]
    store.part_bytes[left] = 16
    assert not remove(store, WORK, Policy(), found).garbage
    assert store.begun == [left]


class Ending(MemoryStore):
    """A store whose uploads end as soon as they were listed."""

    def uploads(self, prefix_uri: str) -> list[Upload]:
        found = super().uploads(prefix_uri)
        self.begun.clear()
        return found


def test_an_upload_that_ends_during_the_look_is_no_garbage() -> None:
    store = Ending()
    store.begun.append(upload(store, f"{WORK}/sft/bb/x", OLD))
    assert not find_garbage(store, WORK, Policy()).garbage


def test_without_an_age_limit_what_was_begun_just_now_goes_too() -> None:
    store = MemoryStore()
    store.begun.append(upload(store, f"{WORK}/sft/bb/x", timedelta(seconds=-1)))
    stored(store, f"{WORK}/generate/aa/part-00000-00000000.parquet", timedelta(seconds=-1))
    finished(store, f"{WORK}/judge/aa")
    assert len(swept(store, Policy(older_than=timedelta())).garbage) == 2
    assert store.begun == []


@pytest.mark.parametrize(
    "named", ["file", "foreign file", "folder of files", "model", "model/", "model as bfloat16", "minio"]
)
def test_inputs_go_only_when_asked_for_and_when_no_manifest_was_made_from_them(named: str) -> None:
    store = MemoryStore()
    item = stored(store, f"{WORK}/inputs/aa/data.jsonl", OLD, b"rows")
    for name in ("config.json", "model.safetensors"):
        stored(store, f"{WORK}/inputs/bb/student/{name}", OLD)
    stored(store, f"{WORK}/inputs/cc/lost.jsonl", OLD, b"other")
    folder = f"{WORK}/inputs/bb/student"
    minio = {uri.replace("s3:", "minio:"): size for uri, size in store.sizes(folder).items()}
    hashes = {
        "file": digest([item.sha256, item.bytes]),
        "foreign file": digest([item.uri, item.bytes]),
        "folder of files": folder_hash([item], f"{WORK}/inputs/aa"),
        "model": identity(store, folder),
        "model/": identity(store, f"{folder}/"),
        "model as bfloat16": digest([identity(store, folder), "bfloat16"]),
        "minio": digest([folder.replace("s3:", "minio:"), minio]),
    }
    finished(store, f"{WORK}/sft/aa", inputs={"given": hashes[named]})
    assert not find_garbage(store, WORK, Policy()).garbage
    assert not find_garbage(store, WORK, Policy(timedelta(days=60), inputs=True)).garbage
    gone = addresses(find_garbage(store, WORK, Policy(inputs=True)))
    kept = {"inputs/aa/data.jsonl"} if "file" in named else {
        "inputs/bb/student/config.json", "inputs/bb/student/model.safetensors"
    }  # fmt: skip
    assert "inputs/cc/lost.jsonl" in gone
    assert not gone & kept
    assert len(gone) + len(kept) == 4


def test_inputs_stay_while_any_stage_is_unfinished() -> None:
    store = MemoryStore()
    stored(store, f"{WORK}/inputs/aa/data.jsonl", OLD)
    stored(store, f"{WORK}/generate/aa/part-00000-00000000.parquet", YOUNG)
    found = find_garbage(store, WORK, Policy(inputs=True))
    assert not found.garbage
    assert found.kept == {f"{WORK}/inputs": f"unfinished stages may use them: {WORK}/generate/aa"}
