"""Data sets: what is found in their first bytes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from limbeck.config import Config
from limbeck.preflight.data import HEAD_BYTES, check_data
from limbeck.preflight.places import Place
from limbeck.preflight.probes import ProbedStore
from limbeck.storage import Store
from tests.preflight.conftest import ROWS, lines

GOOD: dict[str, Any] = {"prompt": ["a", "b"], "answer": ["1", None]}


def parquet(columns: dict[str, Any]) -> Callable[[Path], object]:
    return lambda path: pq.write_table(pa.table(columns), path)


def text(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


FILES: dict[str, tuple[str, Callable[[Path], object], list[str]]] = {
    "good rows": ("a.jsonl", text(ROWS), []),
    "good Parquet": ("a.parquet", parquet(GOOD), []),
    "no line end": ("a.jsonl", text(ROWS.rstrip()), []),
    "longer than what is read": ("a.jsonl", text(b"\n" * 9 + ROWS * HEAD_BYTES), []),
    "not there": ("a.jsonl", lambda _: None, ["error: no such file in `prompts` in "]),
    "another suffix": ("a.txt", text(b"prompt\n1"), ["error: unknown kind of file in `prompts` in "]),
    "empty": ("a.jsonl", text(b""), ["error: the data set is empty in "]),
    "blank lines": ("a.jsonl", text(b"\n\n"), ["error: no usable row at the start"]),
    "no JSON": ("a.jsonl", text(b"prompt,answer\n"), ["error: no usable row at the start"]),
    "not UTF-8": ("a.jsonl", text(b'{"prompt": "\xff"}'), ["error: no usable row at the start"]),
    "rows of lists": ("a.jsonl", text(b'["prompt"]'), ["error: no usable row at the start"]),
    "deep nesting": ("a.jsonl", text(b"[" * 99999), ["error: no usable row at the start"]),
    "a line without an end": ("a.jsonl", text(b"x" * 2 * HEAD_BYTES), ["error: no usable row at the start"]),
    "some rows broken": (
        "a.jsonl",
        text(ROWS + b'{"prompt": 3}\n{"prompt": " "}\n'),
        ["warning: 2 of the first 4 rows are broken"],
    ),
    "no answers": (
        "a.jsonl",
        text(b'{"prompt": "a"}\n'),
        ["warning: no `answer`, so accuracies stay unknown"],
    ),
    "no answers in Parquet": (
        "a.parquet",
        parquet({"prompt": ["a"]}),
        ["warning: no `answer`, so accuracies stay unknown"],
    ),
    "Parquet without rows": (
        "a.parquet",
        lambda path: pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), path),
        ["error: a data set without prompts in "],
    ),
    "Parquet without prompts": (
        "a.parquet",
        parquet({"question": ["a"]}),
        ["error: no column `prompt` in "],
    ),
    "prompts that are numbers": (
        "a.parquet",
        parquet({"prompt": [1]}),
        ["error: a data set without prompts"],
    ),
    "no Parquet": ("a.parquet", text(ROWS), ["error: not a Parquet file in "]),
    "a footer longer than the file": (
        "a.parquet",
        text(b"PAR1" + b"?" * 40 + b"\xff\xff\xff\xffPAR1"),
        ["error: not a Parquet file in "],
    ),
    "Parquet cut short": ("a.parquet", text(b"PAR1PAR1"), ["error: not a Parquet file in "]),
    "a broken footer": (
        "a.parquet",
        text(b"PAR1" + b"?" * 40 + b"\x28\x00\x00\x00PAR1"),
        ["error: not a Parquet file in "],
    ),
}


@pytest.mark.parametrize(("name", "write", "messages"), FILES.values(), ids=FILES)
def test_a_file_on_this_machine_is_checked(
    name: str, write: Callable[[Path], object], messages: list[str], tmp_path: Path
) -> None:
    path = tmp_path / name
    write(path)
    found = lines(check_data(Place("prompts", str(path), None), Config(), measures=True))
    assert len(found) == len(messages)
    for line, message in zip(found, messages, strict=True):
        assert line.startswith(message)
        assert str(path) in line


@pytest.mark.parametrize(
    "name", ["good rows", "good Parquet", "longer than what is read", "no answers", "empty"]
)
def test_an_object_is_checked_alike_by_a_part_of_it(
    name: str, tmp_path: Path, store: Store, work_uri: str
) -> None:
    file, write, messages = FILES[name]
    write(tmp_path / file)
    store.write_file(tmp_path / file, f"{work_uri}/{file}")
    found = lines(check_data(Place("prompts", f"{work_uri}/{file}", ProbedStore()), Config(), measures=True))
    assert len(found) == len(messages)
    for line, message in zip(found, messages, strict=True):
        assert line.startswith(message)


def test_answers_of_train_prompts_are_missed_for_another_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n')
    (line,) = lines(check_data(Place("prompts", str(path), None), Config(), measures=False))
    assert line.startswith("warning: no `answer`, so how often the labels are right stays unknown")
