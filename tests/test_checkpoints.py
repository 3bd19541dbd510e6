"""Training states and models in a real store: a damaged state gives way to the one before it."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest

from limbeck.checkpoints import fetch_base, load_state, save_state
from limbeck.errors import DataError, GateError, StorageError
from limbeck.storage import Store, split
from tests.audit import audited
from tests.fault_proxy import Answer, Request, fault_proxy


def written(folder: Path, step: int) -> Path:
    (folder / f"state-{step}").mkdir()
    for name in ("weights", f"{step}.json"):
        (folder / f"state-{step}" / name).write_text(f"{name} of {step}")
    return folder / f"state-{step}"


def states(store: Store, uri: str) -> list[int]:
    """The steps of all states there are objects of."""
    found = {there.removeprefix(f"{uri}/state/").split("/")[0] for there in store.sizes(f"{uri}/state")}
    return sorted(int(name) for name in found if name != "LATEST")


@pytest.mark.parametrize(("keep", "kept"), [(1, [40]), (2, [30, 40]), (3, [20, 30, 40])])
def test_the_newest_states_stay(
    store: Store, work_uri: str, tmp_path: Path, keep: int, kept: list[int]
) -> None:
    for step in (10, 20, 30, 40):
        save_state(store, work_uri, step, written(tmp_path, step), keep)
    assert states(store, work_uri) == kept
    loaded = load_state(store, work_uri, tmp_path / "loaded")
    assert loaded is not None
    assert (loaded.step, (loaded.folder / "weights").read_text()) == (40, "weights of 40")


def test_what_a_killed_attempt_has_left_half_uploaded_goes_with_the_next_state(
    store: Store, work_uri: str, tmp_path: Path
) -> None:
    save_state(store, work_uri, 10, written(tmp_path, 10))
    store.write_folder(written(tmp_path, 50), f"{work_uri}/state/{50:08d}")
    assert states(store, work_uri) == [10, 50]
    save_state(store, work_uri, 20, written(tmp_path, 20))
    assert states(store, work_uri) == [10, 20]


def test_the_same_state_again_is_one_state(store: Store, work_uri: str, tmp_path: Path) -> None:
    for step in (10, 20):
        save_state(store, work_uri, step, written(tmp_path, step))
    save_state(store, work_uri, 20, tmp_path / "state-20")
    assert states(store, work_uri) == [10, 20]


def test_an_attempt_that_may_not_write_any_more_flips_and_removes_nothing(
    store: Store, work_uri: str, tmp_path: Path
) -> None:
    def lost() -> None:
        raise GateError("another attempt has it")

    save_state(store, work_uri, 10, written(tmp_path, 10), keep=1)
    with pytest.raises(GateError):
        save_state(store, work_uri, 20, written(tmp_path, 20), keep=1, confirm=lost)
    loaded = load_state(store, work_uri, tmp_path / "loaded")
    assert loaded is not None
    assert loaded.step == 10


def damage(store: Store, uri: str, step: int) -> None:
    """Change the bytes of a state's object; what its metadata says of them stays."""
    (item,) = [there for there in store.sizes(f"{uri}/state/{step:08d}") if there.endswith("/weights")]
    store.write_bytes(item, b"others!")


def remove(store: Store, uri: str, step: int) -> None:
    store.delete(store.sizes(f"{uri}/state/{step:08d}"))


@pytest.mark.parametrize("harm", [damage, remove])
def test_a_state_that_cannot_be_read_gives_way_to_the_one_before(
    store: Store, work_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: object
) -> None:
    assert callable(harm)
    for step in (10, 20):
        save_state(store, work_uri, step, written(tmp_path, step))
    harm(store, work_uri, 20)
    loaded = load_state(store, work_uri, tmp_path / "loaded")
    assert loaded is not None
    assert loaded.step == 10
    assert {path.name: path.read_text() for path in loaded.folder.iterdir()} == {
        "weights": "weights of 10",
        "10.json": "10.json of 10",
    }
    assert "the state of step 20 cannot be read, the one before it is tried: " in capsys.readouterr().out
    harm(store, work_uri, 10)
    with pytest.raises(StorageError):
        load_state(store, work_uri, tmp_path / "again")


@pytest.mark.parametrize("refused", ["/weights", "/LATEST"])
def test_a_state_that_does_not_arrive_whole_leaves_the_one_before(
    store: Store, work_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    def pass_on(request: Request, ask: Callable[[], Answer]) -> Answer:
        is_refused = request.method == "PUT" and request.path.endswith(refused)
        return Answer(403, {"Content-Length": "0"}, b"") if is_refused else ask()

    save_state(store, work_uri, 10, written(tmp_path, 10), keep=1)
    with fault_proxy(str(store.endpoint)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        proxy.pass_on = pass_on
        with pytest.raises(StorageError, match="refuses"):
            save_state(Store(), work_uri, 20, written(tmp_path, 20), keep=1)
    loaded = load_state(store, work_uri, tmp_path / "loaded")
    assert loaded is not None
    assert (loaded.step, (loaded.folder / "weights").read_text()) == (10, "weights of 10")


def test_a_store_that_gives_no_state_now_is_no_reason_to_take_an_older_one(
    store: Store, work_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pass_on(request: Request, ask: Callable[[], Answer]) -> Answer:
        return Answer(403, {"Content-Length": "0"}, b"") if "/state/00000020/" in request.path else ask()

    for step in (10, 20):
        save_state(store, work_uri, step, written(tmp_path, step))
    with fault_proxy(str(store.endpoint)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        proxy.pass_on = pass_on
        with pytest.raises(StorageError, match="refuses"):
            load_state(Store(), work_uri, tmp_path / "loaded")


LARGE = 9 << 20
"""More than goes in one piece."""


def test_a_model_of_others_is_fetched_without_a_question_for_each_file(
    store: Store, work_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {"config.json": b"{}", "sub/empty": b"", "model.safetensors": os.urandom(LARGE)}
    client = boto3.client("s3")
    for name, content in contents.items():  # as other tools do, without a sha256
        bucket, key = split(f"{work_uri}/model/{name}")
        client.put_object(Bucket=bucket, Key=key, Body=content)
    (tmp_path / "ours").write_bytes(b"ours")
    store.write_file(tmp_path / "ours", f"{work_uri}/model/ours")
    assert store.endpoint
    with audited(store.endpoint) as (endpoint, accesses):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        folder = fetch_base(Store(), f"{work_uri}/model", tmp_path / "model")
    for name, content in (contents | {"ours": b"ours"}).items():
        assert (folder / name).read_bytes() == content
    kinds = Counter("list" if "list-type=2" in access.path else access.method for access in accesses)
    assert kinds == {"list": 1, "GET": 5}


@pytest.mark.parametrize("num_bytes", [100, LARGE], ids=["small", "in parts"])
def test_a_model_of_others_is_checked_where_its_writer_left_a_sha256(
    store: Store, work_uri: str, tmp_path: Path, num_bytes: int
) -> None:
    content = os.urandom(num_bytes)
    right, wrong = (hashlib.sha256(data).hexdigest() for data in (content, b"other"))
    bucket, key = split(f"{work_uri}/model/weights")
    for recorded in (right, wrong):
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=content, Metadata={"sha256": recorded})
        if recorded == right:
            folder = fetch_base(store, f"{work_uri}/model", tmp_path / "right")
            assert (folder / "weights").read_bytes() == content
        else:
            with pytest.raises(StorageError, match=f"corrupt object .*expected sha256 {wrong[:12]}"):
                fetch_base(store, f"{work_uri}/model", tmp_path / "wrong")
            assert not list((tmp_path / "wrong").iterdir())


@pytest.mark.parametrize("text", ["{", "{}", '{"step": 3}', '{"step": 3, "objects": []}', "[]"])
def test_a_damaged_pointer_is_an_error_with_its_place(
    store: Store, work_uri: str, tmp_path: Path, text: str
) -> None:
    store.write_bytes(f"{work_uri}/state/LATEST", text.encode())
    with pytest.raises(DataError, match=r"damaged pointer.*state/LATEST.*Delete it"):
        load_state(store, work_uri, tmp_path / "loaded")


def test_there_is_no_state_before_the_first(store: Store, work_uri: str, tmp_path: Path) -> None:
    assert load_state(store, work_uri, tmp_path) is None
