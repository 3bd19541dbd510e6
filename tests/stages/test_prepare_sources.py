"""prepare: data sets of every kind and place, published ones in their official form."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from limbeck.errors import ConfigError, DataError
from limbeck.manifest import Manifest
from limbeck.records import GoldAnswer, Prompt, RejectedRow
from limbeck.rows import read_part, read_rows
from limbeck.stages.prepare import Prepared, run
from limbeck.storage import Store
from tests import hub_stub
from tests.hub_stub import Hub
from tests.stages.conftest import ConfigFor, put
from tests.test_presets import ALPACA_EVAL, GSM8K, GSM_PLUS, MMLU_PRO

Rows = Sequence[Mapping[str, object]]


def lines(rows: Rows) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def parquet(rows: Rows) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def table(rows: Rows) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return b"\xef\xbb\xbf" + text.getvalue().encode()


WRITERS = {
    ".jsonl": lines,
    ".json": lambda rows: json.dumps(rows).encode(),
    ".parquet": parquet,
    ".csv": table,
}


def gold(store: Store, made: Prepared) -> dict[str, str]:
    """Gold answers by prompt, of both sides."""
    prompts = {
        row.prompt_id: row.prompt
        for part in (made.prompts, made.heldout)
        for row in read_rows(store, part, Prompt)
    }
    return {prompts[row.prompt_id]: row.answer for row in read_rows(store, made.gold, GoldAnswer)}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_file_gives_the_same_prompts_and_answers(
    kind: str, store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    rows: Rows = [{"frage": f'was, "{n}"?\nja', "antwort": f"a{n}"} for n in range(30)]
    put(store, f"{work_uri}/in/data{kind}", WRITERS[kind](rows))
    fields = {"prompt": "frage", "answer": "antwort"}
    config = config_for(prepare={"fields": fields, "heldout_fraction": 0.5})
    made = run(f"{work_uri}/in/data{kind}", "", config, store, work_uri)
    assert gold(store, made) == {row["frage"]: row["antwort"] for row in rows}


def test_a_folder_of_several_kinds_is_one_data_set(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    folder = f"{work_uri}/in/folder"
    for number, (kind, write) in enumerate(WRITERS.items()):
        rows: Rows = [{"prompt": f"q{number} {n}", "answer": f"{n}"} for n in range(10)]
        put(store, f"{folder}/part={number}/data{kind}", write(rows))
    put(store, f"{folder}/more.csv", b"prompt,answer\nlast,1\na,b,c\nq0 0,0\n")
    for other in ("_SUCCESS", "README.md", ".part.jsonl"):
        put(store, f"{folder}/{other}", b"nothing")
    config = config_for(prepare={"heldout_fraction": 0.5})
    made = run(f"{folder}/", "", config, store, work_uri)
    assert set(gold(store, made)) == {f"q{number} {n}" for number in range(4) for n in range(10)} | {"last"}
    assert made.prompts.rejected == {"not as many cells as columns": 1, "duplicate": 1}
    (part,) = [item for item in made.prompts.objects if "rejected" in item.uri]
    where = [row.where for row in read_part(store, part, RejectedRow)]
    assert f"{folder}/more.csv, row 2" in where
    assert made.prompts.sources == {"prompts": f"{folder}/"}

    put(store, f"{folder}/part=9/more.jsonl", b'{"prompt": "new"}')
    again = run(f"{folder}/", "", config, store, work_uri)
    assert again.prompts.inputs != made.prompts.inputs


@pytest.mark.parametrize("name", ["other.txt", "empty/notes.md"])
def test_what_is_no_data_set_is_named_with_the_kinds(
    name: str, store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    put(store, f"{work_uri}/in/{name}", b"x")
    address = f"{work_uri}/in/{name.partition('/')[0]}"
    with pytest.raises(DataError, match=r"\.jsonl, \.json, \.parquet, \.csv"):
        run(address, "", config_for(), store, work_uri)


@pytest.mark.parametrize("kind", [".csv", ".parquet"])
def test_a_missing_column_is_named_with_those_that_are_there(
    kind: str, store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    put(store, f"{work_uri}/in/data{kind}", WRITERS[kind]([{"question": "a", "answer": "1"}]))
    with pytest.raises(DataError, match=rf"no column `prompt` in .*data{kind}.*got question, answer"):
        run(f"{work_uri}/in/data{kind}", "", config_for(), store, work_uri)


GSM_PLUS_NONE: dict[str, object] = GSM_PLUS | {
    "question": "How high?",
    "answer": "None",
    "perturbation_type": "critical thinking",
}
PUBLISHED: dict[str, tuple[str, bytes, dict[str, object], set[str], dict[str, int]]] = {
    "gsm8k": (
        "test-00000-of-00001.parquet",
        parquet([GSM8K | {"question": f"{n} clips?", "answer": f"so\n#### 1,{n:03}"} for n in range(20)]),
        {"kind": "math"},
        {f"1{n:03}" for n in range(20)},
        {},
    ),
    "gsm_plus": (
        "testmini-00000-of-00001.jsonl",
        lines([*(GSM_PLUS | {"question": f"{n} heels?"} for n in range(7)), GSM_PLUS_NONE]),
        {"kind": "math"},
        {"3.2"},
        {"not answerable by intent (GSM-Plus, critical thinking)": 1},
    ),
    "mmlu_pro": (
        "test-00000-of-00001.parquet",
        parquet([MMLU_PRO | {"question": f"{n} sides?"} for n in range(20)]),
        {"kind": "choice", "shuffle_options": False},
        {"B"},
        {},
    ),
    "alpaca_eval": (
        "alpaca_eval.json",
        json.dumps([ALPACA_EVAL | {"instruction": f"{n} actors?"} for n in range(20)], indent=1).encode(),
        {"kind": "open"},
        set(),
        {},
    ),
}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_a_published_data_set_is_read_in_its_official_form(
    preset: str, store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    name, content, task, answers, aside = PUBLISHED[preset]
    put(store, f"{work_uri}/in/{name}", content)
    rule = "judge" if task["kind"] == "open" else "judged_majority"
    config = config_for(task=task, label={"rule": rule}, prepare={"preset": preset})
    made = run("", f"{work_uri}/in/{name}", config, store, work_uri)
    assert {row.answer for row in read_rows(store, made.gold, GoldAnswer)} == answers
    assert made.prompts.rejected == aside  # one of eight, and yet not broken


def test_prompts_and_held_out_data_may_have_different_forms(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    put(store, f"{work_uri}/in/train.parquet", parquet([GSM8K]))
    put(store, f"{work_uri}/in/held.jsonl", lines([GSM_PLUS]))
    config = config_for(task={"kind": "math"}, prepare={"preset": "gsm8k", "heldout_preset": "gsm_plus"})
    made = run(f"{work_uri}/in/train.parquet", f"{work_uri}/in/held.jsonl", config, store, work_uri)
    assert sorted(gold(store, made).values()) == ["3.2", "72"]


def test_a_preset_and_a_kind_of_task_that_cannot_work_end_before_anything_is_read(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    for side in ("preset", "heldout_preset"):
        config = config_for(task={"kind": "math"}, prepare={side: "mmlu_pro"})
        with pytest.raises(ConfigError, match=r"in config\.task\.kind: expected choice, got math"):
            run("s3://nowhere/x.jsonl", "", config, store, work_uri)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, and an empty cache."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with hub_stub.serve() as found:
        yield found


def test_another_revision_is_not_taken_for_the_first(
    served: Hub, store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    def file(count: int) -> dict[str, bytes]:
        return {"data.jsonl": lines([{"prompt": f"q{n}", "answer": n} for n in range(count)])}

    def prepared(address: str, endpoint: str) -> Manifest:
        config = config_for(prepare={"hub_endpoint": endpoint})
        return run("", address, config, store, work_uri).heldout

    old = served.push("org/set", file(3))
    first = prepared("hf://org/set?file=data.jsonl", served.endpoint)
    assert first.sources == {"heldout": f"hf://org/set@{old}?file=data.jsonl"}
    new = served.push("org/set", file(4))
    second = prepared("hf://org/set?file=data.jsonl", served.endpoint)
    assert (first.num_rows, second.num_rows) == (3, 4)
    assert second.sources == {"heldout": f"hf://org/set@{new}?file=data.jsonl"}
    # Who pins the first commit finds its result again, through a hub that is away.
    assert prepared(f"hf://org/set@{old}?file=data.jsonl", "http://127.0.0.1:9") == first
