"""Data sets of a hub, by its HTTP API on loopback: what is read, and what is said when it cannot be."""

import contextlib
import csv
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from limbeck import processes
from limbeck.config import PrepareConfig
from limbeck.errors import ConfigError, DataError, StorageError
from limbeck.sources import hub, locate, rows
from limbeck.sources.hub import HubData
from limbeck.storage import Store
from tests import hub_stub
from tests.hub_stub import Hub

CARD = b"""---
configs:
- config_name: main
  data_files:
  - split: train
    path: main/train-*
  - split: test
    path: main/test-*
- config_name: stolen
  data_files:
  - split: train
    path: %s
---
# A card
"""
ROWS = [{"question": f"q{n}", "answer": f"so\n#### {n}"} for n in range(5)]


def parquet(values: list[dict[str, str]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(values), buffer)
    return buffer.getvalue()


def files(secret: Path) -> dict[str, bytes]:
    """A data set as openai/gsm8k is laid out; one configuration names a file of the machine that reads."""
    return {
        "README.md": CARD % str(secret).encode(),
        "main/train-00000-of-00002.parquet": parquet(ROWS[:2]),
        "main/train-00001-of-00002.parquet": parquet(ROWS[2:]),
        "main/test-00000-of-00001.parquet": parquet([{"question": "held", "answer": "#### 9"}]),
        "extra.json": json.dumps(ROWS).encode(),
        "program.py": b"raise SystemExit",
    }


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with that data set, and an empty cache."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    (tmp_path / "secret.jsonl").write_text('{"question": "secret"}\n')
    with hub_stub.serve() as found:
        found.push("org/set", files(tmp_path / "secret.jsonl"))
        yield found


def at(served: Hub, *, offline: bool = False) -> PrepareConfig:
    return PrepareConfig(hub_endpoint=served.endpoint, hub_offline=offline)


def questions(address: str, store: Store, settings: PrepareConfig) -> list[tuple[str, object]]:
    source = locate(address, store, settings)
    found = rows(source, store, settings, ["question"])
    return [(row.where.rpartition("/")[2], row.value) for row in found]


def test_a_split_is_read_file_by_file(served: Hub, store: Store) -> None:
    found = questions("hf://org/set?config=main&split=train", store, at(served))
    assert [where for where, _ in found] == [
        "train-00000-of-00002.parquet, row 1",
        "train-00000-of-00002.parquet, row 2",
        *(f"train-00001-of-00002.parquet, row {n}" for n in (1, 2, 3)),
    ]
    assert [value for _, value in found] == [{"question": row["question"]} for row in ROWS]
    asked = [line for line in served.requests if line.startswith("GET") and "parquet" in line]
    assert len(asked) == 2  # of this split alone


def test_a_branch_is_its_commit_from_the_beginning_on(served: Hub, store: Store) -> None:
    address = "hf://org/set?config=main&split=test"
    first = locate(address, store, at(served))
    old = served.branches["org/set", "main"]
    assert first.address == f"hf://org/set@{old}?config=main&split=test"

    new = served.push("org/set", {**served.commits["org/set", old], "main/test-00000-of-00001.parquet": b""})
    second = locate(address, store, at(served))
    assert second.address == f"hf://org/set@{new}?config=main&split=test"
    assert second.content_hash != first.content_hash
    (row,) = rows(first, store, at(served), ["question"])  # goes on with what it began with
    assert row.value == {"question": "held"}
    assert row.where == f"hf://org/set@{old}/main/test-00000-of-00001.parquet, row 1"

    asked = len(served.requests)
    assert locate(first.address, store, at(served)) == first
    assert len(served.requests) == asked  # a pin needs no hub


def test_one_file_is_read_whatever_else_is_there(served: Hub, store: Store) -> None:
    found = questions("hf://org/set@main?file=extra.json", store, at(served))
    assert [json.loads(value) for _, value in found if isinstance(value, bytes)] == ROWS


def test_all_kinds_of_files_are_read_from_a_hub(served: Hub, store: Store) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["question", "answer"])
    writer.writeheader()
    writer.writerows(ROWS)
    lines = "\n".join([*map(json.dumps, ROWS), "no row"])
    served.push("org/lines", {"data/train.jsonl": lines.encode()})
    served.push("org/table", {"train.csv": text.getvalue().encode()})
    assert [value for _, value in questions("hf://org/table?split=train", store, at(served))] == ROWS
    read = [value for _, value in questions("hf://org/lines?split=train", store, at(served))]
    assert read[-1] == b"no row"  # a broken row is for `prepare` to set aside
    assert len(read) == 6


WRONG = {
    "no such data set": ("hf://org/other?split=train", r"no such data set on the hub.*HF_TOKEN"),
    "no such revision": ("hf://org/set@v9?config=main&split=train", "no such revision on the hub"),
    "no such configuration": (
        "hf://org/set@{}?config=other&split=train",
        r"BuilderConfig 'other' not found.*main.*Correct \?config=",
    ),
    "a configuration must be chosen": ("hf://org/set@{}?split=train", r"Config name is missing.*main"),
    "no such split": ("hf://org/set@{}?config=main&split=dev", r"no such split.*got train, test"),
    "no such file": ("hf://org/set@{}?file=other.csv", r"no such file in the data set"),
    "a card that names a file of this machine": (
        "hf://org/set@{}?config=stolen&split=train",
        r"Data files don't belong to org/set",
    ),
    "files of other kinds": ("hf://org/text@{}?split=train", r"a file that is none of .*got train\.txt"),
    "a program": ("hf://org/code@{}?split=train", r"scripts are no longer supported.*\?file=PATH"),
}


@pytest.mark.parametrize(("address", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_read_says_why(address: str, message: str, served: Hub, store: Store) -> None:
    served.push("org/text", {"train.txt": b"a\n"})
    served.push("org/code", {"code.py": b"raise SystemExit", "code.json": b"[]"})
    commit = served.branches.get((address.removeprefix("hf://").partition("@")[0], "main"), "")
    with pytest.raises(DataError, match=message):
        questions(address.format(commit), store, at(served))


def test_a_private_data_set_needs_the_token(
    served: Hub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.private.add("org/set")
    address = "hf://org/set?config=main&split=test"
    with pytest.raises(DataError, match=r"none that may be read.*HF_TOKEN in the secret"):
        questions(address, store, at(served))
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_test")
    assert len(questions(address, store, at(served))) == 1
    assert served.tokens == {"", "Bearer hf_of_this_test"}


def test_the_stores_secrets_stay_out_of_the_process_that_asks(
    served: Hub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_test")
    variables: set[str] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.005):
            for pid in processes.children():
                if any("hub_worker" in argument for argument in processes.command_line(pid)):
                    with contextlib.suppress(OSError):  # it has ended
                        content = Path(f"/proc/{pid}/environ").read_text()
                        variables.update(line.partition("=")[0] for line in content.split("\0"))

    thread = threading.Thread(target=look)
    thread.start()
    locate("hf://org/set?config=main&split=test", store, at(served))
    ended.set()
    thread.join()
    assert {"HF_TOKEN", "HF_ENDPOINT"} <= variables
    assert "AWS_SECRET_ACCESS_KEY" not in variables


def test_a_hub_that_is_away_is_named_with_what_to_do(store: Store, tmp_path: Path) -> None:
    settings = PrepareConfig(hub_endpoint="http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"the hub cannot be reached.*127\.0\.0\.1:9.*mirror.*s3://"):
        locate("hf://org/set?split=train", store, settings)
    pinned = locate(f"hf://org/set@{'0' * 40}?split=train", store, settings)
    with pytest.raises(StorageError, match="the hub cannot be reached"):
        next(rows(pinned, store, settings, ["question"]))


def test_offline_the_cache_is_read_and_nothing_is_asked(served: Hub, store: Store, tmp_path: Path) -> None:
    """The cache as `hf download` leaves it: a snapshot of all files, and the branch's commit."""
    (commit,) = (commit for _, commit in served.commits)
    folder = tmp_path / "cache" / "hub" / "datasets--org--set"
    for name, content in served.commits["org/set", commit].items():
        path = folder / "snapshots" / commit / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)

    settings = at(served, offline=True)
    source = locate("hf://org/set?config=main&split=train", store, settings)
    assert source.address == f"hf://org/set@{commit}?config=main&split=train"
    assert len(list(rows(source, store, settings, ["question"]))) == 5
    assert len(questions("hf://org/set?file=extra.json", store, settings)) == 5
    for address in ("hf://org/other?split=train", f"hf://org/set@{'0' * 40}?config=main&split=train"):
        with pytest.raises(DataError, match=r"not in the hub's local cache.*hf download --repo-type dataset"):
            questions(address, store, settings)
    with pytest.raises(DataError, match="the card names a file outside the data set"):
        questions("hf://org/set?config=stolen&split=train", store, settings)
    assert served.requests == []


ADDRESSES = {
    "hf://o/n?split=train": HubData("o/n", "main", split="train"),
    "hf://o/n@v1.0?config=a%20b&split=train": HubData("o/n", "v1.0", "a b", "train"),
    "hf://o/n@refs/convert/parquet?config=c&split=s": HubData("o/n", "refs/convert/parquet", "c", "s"),
    "hf://o-x/n.y_z?file=a/b.jsonl": HubData("o-x/n.y_z", "main", file="a/b.jsonl"),
}


@pytest.mark.parametrize(("address", "data"), ADDRESSES.items(), ids=ADDRESSES)
def test_an_address_is_read_and_written_again(address: str, data: HubData) -> None:
    assert hub.parse(address) == data
    assert hub.parse(data.address) == data


@pytest.mark.parametrize(
    "address",
    [
        "hf://o/n",
        "hf://n?split=train",
        "hf://datasets/o/n?split=train",
        "hf://o/n/train.jsonl",
        "hf://o/n?config=c",
        "hf://o/n?split=",
        "hf://o/n?split=train&file=a.csv",
        "hf://o/n?split=train&token=x",
        "hf://o/n?file=a.pkl",
        "hf://o/n?file=../a.csv",
        "hf://o/n@../x?split=train",
        "hf://../n?split=train",
    ],
)
def test_another_form_is_refused_with_the_right_one(address: str) -> None:
    with pytest.raises(ConfigError, match=r"expected hf://ORG/NAME@REVISION\?config=CONFIG&split=SPLIT"):
        hub.parse(address)
