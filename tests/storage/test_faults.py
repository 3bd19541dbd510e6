"""Through a network and a server that fail, all arrives whole, or the error says what failed and how long."""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from limbeck.errors import ConfigError, StorageError
from limbeck.storage import Store, StoredObject
from tests.fault_proxy import FAULTS, Answer, FaultProxy, Request
from tests.storage.conftest import Through

MIB = 1 << 20
OUTAGE_SECONDS = float(os.environ.get("OUTAGE_SECONDS", "2"))
"""`make chaos-storage` sets 30."""


def make_folder(folder: Path, seed: int, num_small: int = 120, large_bytes: int = 24 * MIB + 17) -> Path:
    """Many small files and a large one of several parts."""
    rng = random.Random(seed)  # noqa: S311 - no secrets
    (folder / "sub").mkdir(parents=True)
    for number in range(num_small):
        (folder / "sub" / f"{number:04d}").write_bytes(rng.randbytes(rng.randrange(20_000)))
    (folder / "model.safetensors").write_bytes(rng.randbytes(large_bytes))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def base_of(objects: tuple[StoredObject, ...], uri: str) -> str:
    return f"{uri}/{objects[0].uri.removeprefix(f'{uri}/').partition('/')[0]}"


@pytest.mark.parametrize("seed", [1, 2])
def test_a_folder_passes_whole_where_one_request_in_twenty_fails(
    through: Through, store: Store, work_uri: str, tmp_path: Path, seed: int
) -> None:
    folder = make_folder(tmp_path / "in", seed)
    client, proxy = through(seed=seed, rate=0.05)
    objects = client.write_folder(folder, work_uri)
    client.read_folder(objects, base_of(objects, work_uri), tmp_path / "out")
    assert contents(tmp_path / "out") == contents(folder)
    assert sum(proxy.seen[fault] for fault in FAULTS) >= 5
    # What lies there is right as well, seen without the proxy.
    store.read_folder(objects, base_of(objects, work_uri), tmp_path / "straight")
    assert contents(tmp_path / "straight") == contents(folder)
    # An upload that was begun without an answer has an id that the client never learns.
    begun = [request for request in proxy.unheard if request.path.endswith("?uploads")]
    assert len(store.uploads(work_uri)) == len(begun)


def test_an_upload_begun_without_an_answer_stays_for_gc(
    through: Through, store: Store, work_uri: str, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(os.urandom(9 * MIB))
    client, proxy = through()
    proxy.planned += ["", "lost answer"]  # is it there, begin
    item = client.write_file(tmp_path / "a", f"{work_uri}/a")
    assert [request.path.endswith("?uploads") for request in proxy.unheard] == [True]
    assert store.stored(item.uri) == item
    (left,) = store.uploads(work_uri)
    store.abort(left)
    assert store.uploads(work_uri) == []
    assert store.stored(item.uri) == item


@pytest.mark.parametrize("fault", FAULTS)
def test_each_request_is_right_after_any_fault(through: Through, work_uri: str, fault: str) -> None:
    client, proxy = through()
    uri = f"{work_uri}/a"
    proxy.planned += [fault]
    client.write_bytes(uri, b"content")
    proxy.planned += [fault]
    assert client.read_bytes(uri) == b"content"
    proxy.planned += [fault]
    assert client.sizes(work_uri) == {uri: 7}
    proxy.planned += [fault]
    assert client.exists(uri)
    proxy.planned += [fault]
    client.delete([uri])
    assert client.sizes(work_uri) == {}
    assert proxy.seen[fault] == 5


@pytest.mark.parametrize("fault", FAULTS)
def test_a_write_under_a_condition_knows_its_own_object_again(
    through: Through, work_uri: str, fault: str
) -> None:
    client, proxy = through()
    uri = f"{work_uri}/lease"
    proxy.planned += [fault]
    first = client.write_new(uri, b"mine") or ""
    assert client.read_tagged(uri) == (b"mine", first)
    proxy.planned += [fault]
    assert client.write_new(uri, b"another's") is None
    proxy.planned += [fault]
    second = client.replace(uri, b"mine still", first)
    assert client.read_tagged(uri) == (b"mine still", second)
    proxy.planned += [fault]
    assert client.replace(uri, b"another's", first) is None


FORGOTTEN = {
    "the last answer is lost": ["", "", "", "", "lost answer"],  # is it there, begin, two parts, complete
    "and the upload is forgotten": ["", "", "", "", "lost answer", "no such upload"],
    "a part finds no upload": ["", "", "no such upload"],
    "the end finds no upload": ["", "", "", "", "no such upload"],
}


@pytest.mark.parametrize("planned", FORGOTTEN.values(), ids=FORGOTTEN)
def test_an_upload_in_parts_that_the_server_forgets_is_complete_in_the_end(
    through: Through, store: Store, work_uri: str, tmp_path: Path, planned: list[str]
) -> None:
    (tmp_path / "a").write_bytes(os.urandom(9 * MIB))
    client, proxy = through()
    proxy.planned += planned
    item = client.write_file(tmp_path / "a", f"{work_uri}/a")
    assert not proxy.planned
    assert store.stored(item.uri) == item
    assert store.read_file(item, tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    assert store.uploads(work_uri) == []


def test_a_server_that_forgets_every_upload_is_an_error_after_four(
    through: Through, work_uri: str, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(os.urandom(9 * MIB))
    client, proxy = through()
    said, begun = b"<Error><Code>NoSuchUpload</Code></Error>", 0

    def pass_on(request: Request, ask: Callable[[], Answer]) -> Answer:
        nonlocal begun
        begun += request.path.endswith("?uploads")
        is_end = request.method == "POST" and "uploadId=" in request.path
        return Answer(404, {"Content-Length": str(len(said))}, said) if is_end and begun < 9 else ask()

    proxy.pass_on = pass_on
    with pytest.raises(StorageError, match=r"no such object in .*/a"):
        client.write_file(tmp_path / "a", f"{work_uri}/a")
    assert begun == 4


def test_damage_on_the_way_is_found_in_every_part(through: Through, work_uri: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(os.urandom(40 * MIB))
    client, proxy = through()
    item = client.write_file(path, f"{work_uri}/a")
    proxy.planned += ["flipped"] * 3 + [""] * 3 + ["flipped"]
    assert client.read_file(item, tmp_path / "b").read_bytes() == path.read_bytes()
    assert proxy.seen["flipped"] == 4


@pytest.mark.parametrize("num_bytes", [1000, 20 * MIB], ids=["small", "in parts"])
def test_an_object_that_is_damaged_in_the_store_ends_as_an_error(
    through: Through, store: Store, work_uri: str, tmp_path: Path, num_bytes: int
) -> None:
    (tmp_path / "a").write_bytes(os.urandom(num_bytes))
    (tmp_path / "other").write_bytes(os.urandom(num_bytes))
    item = store.write_file(tmp_path / "a", f"{work_uri}/a")
    store.write_file(tmp_path / "other", item.uri)
    client, proxy = through()
    with pytest.raises(StorageError, match=r"corrupt object in .*/a: expected sha256 \w+, got"):
        client.read_file(item, tmp_path / "b")
    assert proxy.seen["GET"] <= 8
    assert not list(tmp_path.glob("b*"))


def test_an_outage_in_mid_transfer_passes(through: Through, work_uri: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "in", 1)
    client, proxy = through(deadline_seconds=2 * OUTAGE_SECONDS + 10)
    with outage(proxy, after_requests=40, seconds=OUTAGE_SECONDS):
        objects = client.write_folder(folder, work_uri)
    with outage(proxy, after_requests=40, seconds=OUTAGE_SECONDS):
        client.read_folder(objects, base_of(objects, work_uri), tmp_path / "out")
    assert contents(tmp_path / "out") == contents(folder)


@contextmanager
def outage(proxy: FaultProxy, after_requests: int, seconds: float) -> Iterator[None]:
    """The server is away for some time, from a moment in the middle of the block on."""
    begins = proxy.seen.total() + after_requests
    ended = threading.Event()

    def happen() -> None:
        while proxy.seen.total() < begins:
            time.sleep(0.005)
        proxy.is_down.set()
        time.sleep(seconds)
        ended.set()
        proxy.is_down.clear()

    thread = threading.Thread(target=happen, daemon=True)
    thread.start()
    yield
    assert ended.is_set(), "the block ended before the outage did"
    thread.join()


def test_an_outage_that_does_not_end_is_an_error_within_the_deadline(
    through: Through, work_uri: str, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "in", 1)
    client, proxy = through(deadline_seconds=2)
    objects = client.write_folder(folder, work_uri)
    proxy.is_down.set()
    start = time.monotonic()
    with pytest.raises(StorageError, match=r"a transfer failed in s3://.* after \d+ tries in \d s"):
        client.read_folder(objects, base_of(objects, work_uri), tmp_path / "out")
    assert time.monotonic() - start < 6
    assert contents(tmp_path / "out") == {}


def test_a_server_that_only_fails_is_an_error_within_the_deadline(through: Through, work_uri: str) -> None:
    client, _ = through(rate=1, faults=("slow down",), deadline_seconds=1)
    start = time.monotonic()
    with pytest.raises(
        StorageError, match=r"the object store failed in .*SlowDown \(503\).* after \d+ tries"
    ):
        client.write_bytes(f"{work_uri}/a", b"1")
    assert time.monotonic() - start < 4


def test_what_cannot_pass_is_asked_once(
    through: Through, work_uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    client, proxy = through()
    for action in (
        lambda: client.read_bytes(f"{work_uri}/absent"),
        lambda: client.sizes("s3://nowhere-bucket/x"),  # a write would make it, on this server
        lambda: client.read_file(
            StoredObject(uri=f"{work_uri}/absent", bytes=9 * MIB, sha256=""), tmp_path / "x"
        ),
    ):
        before = proxy.seen.total()
        with pytest.raises(StorageError, match="no such"):
            action()
        assert proxy.seen.total() - before <= 2  # two parts were asked for at the same time
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    before = proxy.seen.total()
    with pytest.raises(StorageError, match="refuses these credentials"):
        Store().write_bytes(f"{work_uri}/x", b"1")
    assert proxy.seen.total() - before == 1


def test_the_first_failure_of_a_folder_ends_the_rest(
    through: Through, store: Store, work_uri: str, tmp_path: Path
) -> None:
    objects = store.write_folder(make_folder(tmp_path / "in", 1, num_small=300, large_bytes=10), work_uri)
    store.delete([objects[3].uri])
    client, proxy = through()
    with pytest.raises(StorageError, match=rf"no such object in {objects[3].uri}"):
        client.read_folder(objects, base_of(objects, work_uri), tmp_path / "out")
    assert proxy.seen["GET"] < 100
    assert not list(tmp_path.rglob("*.part"))


def test_the_first_failure_ends_the_patience_of_the_rest(
    through: Through, store: Store, work_uri: str, tmp_path: Path
) -> None:
    objects = store.write_folder(make_folder(tmp_path / "in", 1, num_small=1, large_bytes=10), work_uri)
    missing, busy = objects
    store.delete([missing.uri])
    client, proxy = through(deadline_seconds=5)
    asked, failed, after = threading.Event(), threading.Event(), 0

    def pass_on(request: Request, ask: Callable[[], Answer]) -> Answer:
        nonlocal after
        if request.path.endswith(busy.uri.rpartition("/")[2]):
            after += failed.is_set()
            asked.set()
            return Answer(503, {"Content-Length": "0"}, b"")
        asked.wait()
        failed.set()
        return ask()

    proxy.pass_on = pass_on
    with pytest.raises(StorageError, match=rf"no such object in {missing.uri}"):
        client.read_folder(objects, base_of(objects, work_uri), tmp_path / "out")
    assert after <= 2


def test_a_deadline_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMBECK_STORAGE_DEADLINE_SECONDS", "soon")
    with pytest.raises(
        ConfigError, match=r"LIMBECK_STORAGE_DEADLINE_SECONDS is no number of seconds.*got soon"
    ):
        Store()
