"""Data sets: what is found in their first bytes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from limbeck.config import Config, parse_config
from limbeck.preflight.data import HEAD_BYTES, check_data
from limbeck.preflight.places import Place
from limbeck.preflight.probes import ProbedStore
from limbeck.storage import Store
from tests import hub_stub
from tests.preflight.conftest import ROWS, lines

OPEN = {"task": {"kind": "open"}, "label": {"rule": "judge"}}

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
    "good CSV": ("a.csv", text(b'prompt,answer\n"a,\nb",1\n'), []),
    "CSV longer than what is read": ("a.csv", text(b"prompt,answer\n" + b'"a\nb",1\n' * HEAD_BYTES), []),
    "CSV without the column": ("a.csv", text(b"question,answer\na,1\n"), ["error: no column `prompt` in "]),
    "CSV with a broken row": (
        "a.csv",
        text(b"prompt,answer\na,1\nb,2,3\n"),
        ["warning: 1 of the first 2 rows are broken"],
    ),
    "good array": ("a.json", text(b'[\n {"prompt": "a", "answer": 1}\n]'), []),
    "an array longer than what is read": (
        "a.json",
        text(b"[" + b",\n".join([b'{"prompt": "a", "answer": 1}'] * HEAD_BYTES) + b"]"),
        [],
    ),
    "an array that breaks off": (
        "a.json",
        text(b'[{"prompt": "a", "answer": 1}, {"prom'),
        ["error: a JSON array breaks off in "],
    ),
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


CAPITALS = ["Rome", "Oslo"]
SETTINGS: dict[str, tuple[str, Callable[[Path], object], dict[str, Any], list[str]]] = {
    "own columns": (
        "a.jsonl",
        text(b'{"q": "a", "a": 1}\n'),
        {"prepare": {"fields": {"prompt": "q", "answer": "a"}}},
        [],
    ),
    "own columns in Parquet": (
        "a.parquet",
        parquet({"q": ["a"]}),
        {"prepare": {"fields": {"prompt": "q", "answer": "a"}}},
        ["warning: no `a`, so accuracies stay unknown"],
    ),
    "own columns that are not there": (
        "a.parquet",
        parquet(GOOD),
        {"prepare": {"fields": {"prompt": "q"}}},
        ["error: no column `q` in "],
    ),
    "a preset": (
        "a.jsonl",
        text(b'{"question": "a", "answer": "#### 1"}\n'),
        {"prepare": {"preset": "gsm8k"}, "task": {"kind": "math"}},
        [],
    ),
    "a preset of other rows": (
        "a.jsonl",
        text(ROWS),
        {"prepare": {"preset": "gsm8k"}, "task": {"kind": "math"}},
        ["error: no usable row at the start of the data set"],
    ),
    "a preset and a kind of task that cannot work": (
        "a.jsonl",
        text(b'{"instruction": "a"}\n'),
        {"prepare": {"preset": "alpaca_eval"}, "task": {"kind": "math"}},
        ["error: answers of the kind `math` cannot be found in the preset `alpaca_eval`"],
    ),
    "a preset without gold": (
        "a.jsonl",
        text(b'{"instruction": "a"}\n'),
        {"prepare": {"preset": "alpaca_eval"}, **OPEN},
        [],
    ),
    "open questions without references": ("a.jsonl", text(b'{"prompt": "a"}\n'), OPEN, []),
    "options": (
        "a.jsonl",
        text(b'{"prompt": "a", "options": ["x", "y"], "answer": "B"}\n'),
        {"task": {"kind": "choice"}},
        [],
    ),
    "an answer that is no option": (
        "a.jsonl",
        text(b'{"prompt": "a", "options": ["x", "y"], "answer": "C"}\n' + ROWS),
        {"task": {"kind": "choice"}},
        ["warning: 1 of the first 3 rows are broken"],
    ),
    "options in Parquet": (
        "a.parquet",
        parquet({"prompt": ["a"], "options": [CAPITALS], "answer": ["A"]}),
        {"task": {"kind": "choice"}},
        [],
    ),
    "options in Parquet that are one text": (
        "a.parquet",
        parquet({"prompt": ["a"], "options": ["A. x B. y"], "answer": ["A"]}),
        {"task": {"kind": "choice"}},
        ["error: options that are no texts in "],
    ),
    "options of another kind of task": (
        "a.parquet",
        parquet({"prompt": ["a"], "options": ["A. x B. y"], "answer": ["A"]}),
        {"task": {"kind": "math"}},
        [],
    ),
}


@pytest.mark.parametrize(("name", "write", "settings", "messages"), SETTINGS.values(), ids=SETTINGS)
def test_rows_are_looked_at_as_the_settings_say(
    name: str, write: Callable[[Path], object], settings: dict[str, Any], messages: list[str], tmp_path: Path
) -> None:
    write(tmp_path / name)
    place = Place("prompts", str(tmp_path / name), None)
    found = lines(check_data(place, parse_config(settings), measures=True))
    assert len(found) == len(messages)
    for line, message in zip(found, messages, strict=True):
        assert line.startswith(message)


def test_of_a_folder_one_file_of_each_kind_is_looked_at(tmp_path: Path, store: Store, work_uri: str) -> None:
    files = {"a.jsonl": ROWS, "b/c.csv": b"question\n1\n", "_SUCCESS": b"", "notes.txt": b"x"}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
        store.write_bytes(f"{work_uri}/in/{name}", content)
    places = [
        Place("prompts", str(tmp_path), None),
        Place("prompts", f"{work_uri}/in/", ProbedStore()),
    ]
    for place in places:
        (line,) = lines(check_data(place, Config(), measures=True))
        assert line.startswith(f"error: no column `prompt` in {place.path.rstrip('/')}/b/c.csv")
    (tmp_path / "b" / "c.csv").write_text("prompt,answer\na,1\n")
    assert check_data(places[0], Config(), measures=True) == []


def test_of_a_hub_the_names_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with hub_stub.serve() as served:
        served.push("org/set", {"train.jsonl": ROWS})
        config = parse_config({"prepare": {"hub_endpoint": served.endpoint}})

        def found(address: str) -> list[str]:
            return lines(check_data(Place("prompts", address, None), config, measures=True))

        assert found("hf://org/set?split=train") == []
        (line,) = found("hf://org/set?split=test")
        assert line.startswith("error: no such split in the data set in hf://org/set@")
        (line,) = found("hf://org/set")
        assert line.startswith("error: not the address of a data set on a hub")
        assert not any("GET" in line and "train.jsonl" in line for line in served.requests)
