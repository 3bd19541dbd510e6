"""`limbeck gc` removes what nothing refers to and nothing else, on a real server and on made-up ones."""

import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
import typer
from typer.testing import CliRunner

from limbeck import lease
from limbeck.checkpoints import identity, save_state
from limbeck.cli.work import gc as gc_command
from limbeck.cli.work import status
from limbeck.garbage import Found, Garbage, Policy, find_garbage
from limbeck.gc import remove, text
from limbeck.lease import Lease
from limbeck.manifest import MANIFEST, Manifest, commit, digest, find
from limbeck.records import GoldAnswer
from limbeck.rows import write_rows
from limbeck.sources import folder_hash
from limbeck.storage import Store, StoredObject, Upload, split
from tests.memory_store import MemoryStore

app = typer.Typer()
app.command("gc")(gc_command)
app.command("status")(status)

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


def upload(store: MemoryStore, uri: str, age: timedelta) -> Upload:
    return Upload(uri, "id", store.now - age)


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


def goes_on(store: MemoryStore) -> None:
    stored(store, f"{WORK}/generate/aa/part-00001-00000000.parquet")


def starts(store: MemoryStore) -> None:
    leased(store, f"{WORK}/generate/aa", timedelta())


def finishes(store: MemoryStore) -> None:
    finished(store, f"{WORK}/generate/aa")


def is_written_again(store: MemoryStore) -> None:
    stored(store, f"{WORK}/generate/aa/part-00000-00000000.parquet", YOUNG)


@pytest.mark.parametrize("happens", [goes_on, starts, finishes, is_written_again])
def test_what_a_run_took_up_meanwhile_stays(happens: Callable[[MemoryStore], None]) -> None:
    store = MemoryStore()
    stored(store, f"{WORK}/generate/aa/part-00000-00000000.parquet", OLD)
    found = find_garbage(store, WORK, Policy())
    assert len(found.garbage) == 1
    happens(store)
    assert not remove(store, WORK, Policy(), found).garbage
    assert f"{WORK}/generate/aa/part-00000-00000000.parquet" in store.objects


class Interrupted(MemoryStore):
    """A store in which something happens just before the first object is deleted."""

    def __init__(self) -> None:
        super().__init__()
        self.happens: list[Callable[[], None]] = []

    def write_new(self, uri: str, data: bytes) -> str | None:
        while self.happens:
            self.happens.pop()()
        return super().write_new(uri, data)


def test_an_attempt_that_starts_at_the_last_moment_keeps_its_parts() -> None:
    """After the second look and before gc has the lease: the lease decides."""
    store = Interrupted()
    stored(store, f"{WORK}/generate/aa/part-00000-00000000.parquet", OLD)
    found = find_garbage(store, WORK, Policy())
    with lease.held(store, f"{WORK}/generate/aa", "generate(teacher)"):
        there = store.objects.pop(f"{WORK}/generate/aa/lease.json")
        store.happens.append(lambda: store.objects.update({f"{WORK}/generate/aa/lease.json": there}))
        removed = remove(store, WORK, Policy(), found)
        assert not removed.garbage
        assert "is at work in" in removed.kept[f"{WORK}/generate/aa"]
    assert f"{WORK}/generate/aa/part-00000-00000000.parquet" in store.objects


def test_an_attempt_that_ends_at_the_last_moment_keeps_its_parts() -> None:
    """After the second look and before gc has the lease, which it then gets."""
    store = Interrupted()
    stored(store, f"{WORK}/generate/aa/part-00000-00000000.parquet", OLD)
    found = find_garbage(store, WORK, Policy())
    store.happens.append(lambda: finishes(store))
    assert not remove(store, WORK, Policy(), found).garbage
    made = find(store, f"{WORK}/generate/aa")
    assert made is not None
    assert made.objects[0].uri in store.objects


def made_up(rng: random.Random) -> MemoryStore:
    """A work_uri after a life of kills, retries and copies."""
    store = MemoryStore()
    names = ("part-00000-00000000.parquet", "part-00001-00000000.parquet", "cc/model", "state/00000010/x",
             "rejected-00000-00000000.parquet", "state/LATEST", "odd name", "deep/manifest.json")  # fmt: skip
    ages = (timedelta(), YOUNG, OLD)
    outputs = ("prepare/{}/prompts", "prepare/{}/gold", "label/{}/labels", "generate/{}", "sft/{}", "ppo/{}")
    for number in range(rng.randrange(1, 12)):
        uri = f"{WORK}/" + rng.choice(outputs).format(f"k{number % 4}")
        if rng.random() < 0.6:
            made = finished(store, uri, tuple(rng.sample(names, rng.randrange(4))))
            if made.objects and rng.random() < 0.2:
                store.delete([rng.choice(made.objects).uri])
            if rng.random() < 0.1:
                store.put(f"{uri}/{MANIFEST}", b"{", rng.choice(ages))
        for name in rng.sample(names, rng.randrange(4)):
            if f"{uri}/{name}" not in store.objects:
                stored(store, f"{uri}/{name}", rng.choice(ages), rng.randbytes(rng.randrange(9)))
        if rng.random() < 0.3:
            leased(store, f"{WORK}/{uri.removeprefix(f'{WORK}/').split('/')[0]}/k{number % 4}",
                   rng.choice((timedelta(seconds=5), OLD)), rng.choice(("held", "released")))  # fmt: skip
        if rng.random() < 0.3:
            store.begun.append(upload(store, f"{uri}/{number}", rng.choice(ages)))
        if rng.random() < 0.3:
            stored(store, f"{WORK}/inputs/i{number}/x", rng.choice(ages))
    return store


def live_roots(store: MemoryStore) -> set[str]:
    roots = {uri.removesuffix("/lease.json") for uri in store.objects if uri.endswith("/lease.json")}
    return {root for root in roots if lease.live(store, root)}


@pytest.mark.parametrize("seed", range(300))
def test_after_gc_every_manifest_is_as_complete_as_before(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - no secrets
    store = made_up(rng)
    policy = Policy(
        rng.choice((timedelta(), timedelta(days=7))),
        rng.randrange(3),
        unfinished_states=rng.random() < 0.5,
        inputs=rng.random() < 0.5,
    )
    before = dict(store.objects)
    prefixes = [
        uri.removesuffix(f"/{MANIFEST}")
        for uri, (data, *_) in before.items()
        if uri.endswith(f"/{MANIFEST}") and data.startswith(b"{")
    ]

    def listed() -> dict[str, list[str]]:
        """The objects of each manifest that are there."""
        there = {}
        for prefix in prefixes:
            try:
                objects = json.loads(store.objects[f"{prefix}/{MANIFEST}"][0])["objects"]
            except ValueError:
                objects = []
            there[prefix] = [item["uri"] for item in objects if item["uri"] in store.objects]
        return there

    complete, protected = listed(), live_roots(store)
    found = find_garbage(store, WORK, policy)
    assert store.objects == before, "a dry run changed something"
    removed = remove(store, WORK, policy, found)
    assert listed() == complete
    gone = set(before) - set(store.objects)
    assert gone <= {item.uri for item in found.garbage} | {
        uri for uri in before if uri.endswith("lease.json")
    }
    assert not [uri for uri in gone for root in protected if uri.startswith(f"{root}/")]
    assert len(removed.garbage) == len(found.garbage)
    # Unfinished stages kept inputs and leases until now.
    left = remove(store, WORK, policy, find_garbage(store, WORK, policy))
    assert {item.why for item in left.garbage} <= {"lease that is over", "input of no manifest"}
    assert listed() == complete
    assert not find_garbage(store, WORK, policy).garbage


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_on_a_real_server_it_shows_first_and_removes_when_told(store: Store, work_uri: str) -> None:
    rows = [GoldAnswer(prompt_id="1", answer="a")]
    uri = f"{work_uri}/evaluate/aa"
    with lease.held(store, uri, "evaluate") as held:
        made = Manifest(
            stage="evaluate", kind="results", name="x", uri=uri, objects=(write_rows(store, uri, rows),),
            inputs={}, config_hash="", code_version="",
        )  # fmt: skip
        commit(store, made, held)
    orphan = write_rows(store, uri, [GoldAnswer(prompt_id="2", answer="b")])
    left = write_rows(store, f"{work_uri}/generate/bb", rows)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "weights").write_text("w")
        for step in (1, 2):
            save_state(store, f"{work_uri}/sft/cc", step, Path(folder))
    bucket, key = split(f"{work_uri}/reward/dd/weights")
    client, asked = boto3.client("s3"), {"Bucket": bucket, "Key": key}
    asked["UploadId"] = client.create_multipart_upload(**asked)["UploadId"]
    for number, num_bytes in ((1, 3000), (2, 456)):
        client.upload_part(**asked, PartNumber=number, Body=bytes(num_bytes))
    before = store.listing(work_uri)

    shown = invoke("gc", work_uri, "--older-than", "0")
    assert shown.exit_code == 0, shown.output
    assert "4 objects," in shown.output.splitlines()[0]
    assert "to remove; --delete does it" in shown.output
    assert Counter(line[:19] for line in shown.output.splitlines()[3:]) == {
        "not in the manifest": 1, "lease that is over ": 1, "unfinished and left": 1,
        "abandoned upload   ": 1,
    }  # fmt: skip
    (line,) = [line for line in shown.output.splitlines() if line.startswith("abandoned upload")]
    assert line.split()[2:5] == ["1", "3.5", "kB"]
    assert store.listing(work_uri) == before
    assert len(store.uploads(work_uri)) == 1

    done = invoke("gc", work_uri, "--older-than", "0", "--delete")
    assert done.exit_code == 0, done.output
    assert "removed" in done.output.splitlines()[0]
    gone = set(before) - set(store.listing(work_uri))
    assert gone == {orphan.uri, left.uri, f"{uri}/lease.json"}
    assert find(store, uri) == made
    assert store.uploads(work_uri) == []
    assert invoke("gc", work_uri, "--older-than", "0").output == f"{work_uri}: 0 objects, 0 B to remove\n"
    assert invoke("gc", work_uri, "--older-than", "0", "--states").output.count("training state") == 1


@pytest.mark.parametrize("age", ["", "7", "-1d", "1w", "1.5d", "d", "99999999d", "\uff11d"])
def test_what_is_no_age_is_refused(age: str) -> None:
    result = invoke("gc", "s3://b/work", f"--older-than={age}")
    assert result.exit_code == 2
    assert "not an age in --older-than: expected 7d, 12h, 30m or 0" in result.stderr


def test_hostile_names_do_nothing_to_a_terminal() -> None:
    store = MemoryStore()
    finished(store, f"{WORK}/sft/aa")
    stored(store, f"{WORK}/sft/aa/\x1b[31mred", OLD)
    stored(store, f"{WORK}/sft/\x1b]0;owned\x07/part-00000-00000000.parquet", OLD)
    stored(store, f"{WORK}/preflight/\x1b[31m/../small", OLD)
    store.begun.append(upload(store, f"{WORK}/sft/\x1b/x", OLD))
    found = swept(store, Policy())
    assert all(line.isprintable() for line in text(WORK, found, removed=False).split("\n"))
    assert not [item for item in found.garbage if "\x1b" in item.uri]


def test_garbage_is_told_by_place_and_reason() -> None:
    store = MemoryStore()
    big = Garbage(f"{WORK}/sft/aa", f"{WORK}/sft/aa/x", "not in the manifest", 3_000_000, store.now)
    found = Found((big, big._replace(uri=f"{WORK}/sft/aa/y")), {f"{WORK}/ppo/aa": "held by ppo"})
    lines = text(WORK, found, removed=True).splitlines()
    assert lines[0] == f"{WORK}: 2 objects, 6.0 MB removed"
    assert lines[3].split() == [
        "not", "in", "the", "manifest", "2", "6.0", "MB", "2026-01-01", "00:00", "sft/aa"
    ]  # fmt: skip
    assert lines[4] == "kept ppo/aa: held by ppo"
