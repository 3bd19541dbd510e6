"""`limbeck gc` removes what was found, and nothing that a run took up meanwhile, in stores of all kinds."""

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
from limbeck.checkpoints import save_state
from limbeck.cli.work import gc as gc_command
from limbeck.cli.work import status
from limbeck.garbage import Found, Garbage, Policy, find_garbage
from limbeck.gc import remove, text
from limbeck.manifest import MANIFEST, Manifest, commit, find
from limbeck.records import GoldAnswer
from limbeck.rows import write_rows
from limbeck.storage import Store, split
from tests.leftovers import OLD, WORK, YOUNG, finished, leased, stored, swept, upload
from tests.memory_store import MemoryStore

app = typer.Typer()
app.command("gc")(gc_command)
app.command("status")(status)


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
    outputs = ("prepare/{}/prompts", "prepare/{}/gold", "label/{}/labels", "generate/{}", "sft/{}", "ppo/{}",
               "ablation/{}/labels", "ablation/{}", "export/{}")  # fmt: skip
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
        if uri.endswith(f"/{MANIFEST}") and "/deep/" not in uri and data.startswith(b"{")
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
        given = Manifest(
            stage="evaluate", kind="results", name="x", uri=uri, objects=(write_rows(store, uri, rows),),
            inputs={}, config_hash="", code_version="",
        )  # fmt: skip
        made = commit(store, given, held)
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
