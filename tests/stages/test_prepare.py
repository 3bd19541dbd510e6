"""prepare: bad rows are set aside with reasons, splits are disjoint, gold lies apart."""

import io
import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from limbeck.errors import ConfigError, DataError
from limbeck.questions import MAX_LINE_BYTES
from limbeck.records import GoldAnswer, Prompt, RejectedRow
from limbeck.rows import ROWS_PER_PART, iter_rows, read_part, read_rows
from limbeck.stages.prepare import Prepared, run
from limbeck.storage import Store
from tests.stages.conftest import ConfigFor, put


def test_splits_are_disjoint_and_hold_everything(store: Store, prepared: Prepared) -> None:
    train = {row.prompt for row in read_rows(store, prepared.prompts, Prompt)}
    heldout = {row.prompt for row in read_rows(store, prepared.heldout, Prompt)}
    assert not train & heldout
    assert train | heldout == {f"sum {n}" for n in range(40)}
    assert train
    assert heldout
    # What is held out of the same data leaves nothing: it is no duplicate.
    assert not [item.uri for item in prepared.prompts.objects if "/removed-" in item.uri]
    assert prepared.prompts.rejected == {}


def test_gold_is_in_no_file_of_prompts(store: Store, prepared: Prepared) -> None:
    assert "answer" not in Prompt.model_fields
    assert not {item.uri for item in prepared.gold.objects} & {
        item.uri for item in (*prepared.prompts.objects, *prepared.heldout.objects)
    }
    assert sorted(int(row.answer) for row in read_rows(store, prepared.gold, GoldAnswer)) == list(range(40))


BROKEN = {
    b"\xff\xfe{}": "not UTF-8",
    b"{": "not JSON",
    b"[" * 100_000: "not JSON",
    b"[1]": "not an object",
    b'{"question": "x"}': "prompt missing",
    b'{"prompt": null}': "prompt missing",
    b'{"prompt": 3}': "prompt not a text",
    b'{"prompt": " "}': "prompt empty",
    b'{"prompt": "' + b"x" * 300 + b'"}': "prompt too long",
    b'{"prompt": "sum", "answer": [1]}': "answer not a text or number",
    b'{"prompt": "good 0"}': "duplicate",
    b'{"prompt": "sum", "answer": ' + b"9" * 5000 + b"}": "not JSON",  # int() refuses so many digits
    b'{"prompt": "\\ud800"}': "half a surrogate pair",
    b'{"prompt": "sum", "answer": "\\udc00"}': "half a surrogate pair",
}


def test_broken_rows_are_set_aside_with_their_reason(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    good = [json.dumps({"prompt": f"good {n}"}).encode() for n in range(50)]
    put(store, f"{work_uri}/in/data.jsonl", b"\n".join([*good, *BROKEN]))
    config = config_for(prepare={"max_bad_fraction": 0.5, "max_prompt_chars": 200})
    made = run(f"{work_uri}/in/data.jsonl", "", config, store, work_uri)
    (rejected_part,) = [item for item in made.prompts.objects if "rejected" in item.uri]
    rejected = read_part(store, rejected_part, RejectedRow)
    assert [row.reason for row in rejected] == list(BROKEN.values())
    assert rejected[0].where == f"{work_uri}/in/data.jsonl, row 51"
    assert max(len(row.row) for row in rejected) <= 500
    assert made.prompts.rejected == dict(Counter(BROKEN.values()))
    assert made.prompts.num_rows + made.heldout.num_rows == 50
    assert made.prompts.num_input_rows == 50 + len(BROKEN)


def test_a_line_without_an_end_is_cut_and_set_aside(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    good = [json.dumps({"prompt": f"good {n}"}).encode() for n in range(40)]
    endless = b'{"prompt": "' + b"x" * (2 * MAX_LINE_BYTES + 9) + b'"}'
    put(store, f"{work_uri}/in/data.jsonl", b"\n".join([endless, *good, b'{"prompt": 3}']))
    made = run(
        f"{work_uri}/in/data.jsonl", "", config_for(prepare={"max_bad_fraction": 0.5}), store, work_uri
    )
    (rejected_part,) = [item for item in made.prompts.objects if "rejected" in item.uri]
    rejected = [
        (row.where.split(", ")[1], row.reason) for row in read_part(store, rejected_part, RejectedRow)
    ]
    assert rejected == [("row 1", "line too long"), ("row 42", "prompt not a text")]


def test_large_outputs_come_in_parts_and_duplicates_are_found_over_their_borders(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    num_rows = ROWS_PER_PART + 500
    rows = [b'{"prompt": "%d", "answer": %d}' % (n, n) for n in (*range(num_rows), 0, num_rows - 1)]
    put(store, f"{work_uri}/in/data.jsonl", b"\n".join(rows))
    made = run(
        f"{work_uri}/in/data.jsonl", "", config_for(prepare={"heldout_fraction": 0.001}), store, work_uri
    )
    assert made.prompts.rejected == {"duplicate": 2}
    assert made.prompts.num_rows + made.heldout.num_rows == num_rows
    parts = [item.rows for item in made.prompts.objects if "/part-" in item.uri]
    assert parts == [ROWS_PER_PART, made.prompts.num_rows - ROWS_PER_PART]
    # In the order of the file; gold of the train side first.
    train = [int(row.prompt) for row in iter_rows(store, [made.prompts], Prompt)]
    heldout = [int(row.prompt) for row in iter_rows(store, [made.heldout], Prompt)]
    assert (train, heldout) == (sorted(train), sorted(heldout))
    assert [int(row.answer) for row in iter_rows(store, [made.gold], GoldAnswer)] == [*train, *heldout]


def test_held_out_data_alone_is_enough(store: Store, work_uri: str, config_for: ConfigFor) -> None:
    put(store, f"{work_uri}/in/held.jsonl", b'{"prompt": "a", "answer": 1}\n{"prompt": "b"}\n{"prompt": "a"}')
    held = f"{work_uri}/in/held.jsonl"
    made = run("", held, config_for(), store, work_uri)
    assert (made.prompts.num_rows, read_rows(store, made.prompts, Prompt)) == (0, [])
    assert made.prompts.rejected == {"duplicate": 1}
    assert [row.prompt for row in read_rows(store, made.heldout, Prompt)] == ["a", "b"]
    assert [row.answer for row in read_rows(store, made.gold, GoldAnswer)] == ["1"]
    assert run("", held, config_for(), store, work_uri) == made


def test_without_any_data_set_the_settings_are_named(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    with pytest.raises(
        ConfigError, match=r"no data set in prepare: expected prompts, held-out prompts or both"
    ):
        run("", "", config_for(), store, work_uri)


def test_too_many_broken_rows_stop_the_stage(store: Store, work_uri: str, config_for: ConfigFor) -> None:
    put(store, f"{work_uri}/in/data.jsonl", b'{"prompt": "a"}\n{"prompt": null}')
    with pytest.raises(
        DataError, match=r"too many broken rows in .*row 2: expected at most 5%.*1 of 2.*prompt missing"
    ):
        run(f"{work_uri}/in/data.jsonl", "", config_for(), store, work_uri)


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_data_set_is_refused(
    store: Store, work_uri: str, config_for: ConfigFor, content: bytes
) -> None:
    put(store, f"{work_uri}/in/data.jsonl", content)
    with pytest.raises(DataError, match=r"the data set is empty in .*data\.jsonl"):
        run(f"{work_uri}/in/data.jsonl", "", config_for(), store, work_uri)


def test_a_missing_data_set_is_named(store: Store, work_uri: str, config_for: ConfigFor) -> None:
    with pytest.raises(DataError, match=r"no such data set in .*data\.jsonl"):
        run(f"{work_uri}/in/data.jsonl", "", config_for(), store, work_uri)


def test_parquet_is_read_and_damaged_parquet_refused(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    buffer = io.BytesIO()
    table = pa.table({"prompt": [f"q {n}" for n in range(30)], "answer": [float(n) for n in range(30)]})
    pq.write_table(table, buffer)
    data = f"{work_uri}/in/data.parquet"
    put(store, data, buffer.getvalue())
    made = run(data, "", config_for(prepare={"heldout_fraction": 0.5}), store, work_uri)
    assert made.gold.num_rows == 30
    put(store, data.replace("data", "bad"), b"PAR1 but no more")
    with pytest.raises(DataError, match=r"not a Parquet file in .*bad\.parquet"):
        run(f"{work_uri}/in/bad.parquet", "", config_for(), store, work_uri)


def test_a_train_prompt_that_is_held_out_leaves_the_train_side(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    put(store, f"{work_uri}/in/data.jsonl", b'{"prompt": "a"}\n{"prompt": "b"}')
    put(store, f"{work_uri}/in/held.jsonl", b'{"prompt": "b", "answer": 1}')
    made = run(f"{work_uri}/in/data.jsonl", f"{work_uri}/in/held.jsonl", config_for(), store, work_uri)
    assert [row.prompt for row in read_rows(store, made.prompts, Prompt)] == ["a"]
    assert made.prompts.rejected == {"also held out": 1}


def test_a_second_run_finds_the_first(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    again = run(
        f"{work_uri}/in/data.jsonl", "", config_for(prepare={"heldout_fraction": 0.3}), store, work_uri
    )
    assert again == prepared
    assert "already complete" in capsys.readouterr().out


CAPITALS = ["Paris", "London", "Rome", "Berlin"]


def choices(rows: list[dict[str, object]]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def gold_texts(made: Prepared, store: Store) -> dict[str, str]:
    """The question's first line -> the text of the option that gold's letter stands for."""
    gold = {row.prompt_id: row.answer for row in read_rows(store, made.gold, GoldAnswer)}
    found = {}
    for manifest in (made.prompts, made.heldout):
        for row in read_rows(store, manifest, Prompt):
            question, *lines = row.prompt.split("\n")
            found[question] = next(line[3:] for line in lines if line.startswith(f"{gold[row.prompt_id]}. "))
    return found


def test_options_are_shuffled_for_each_prompt_and_gold_goes_along(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    forms = ("Rome", "C", "(c)", "C.", 2, "2", 2.0)
    rows: list[dict[str, object]] = [
        {"prompt": f"capital {n}", "options": CAPITALS, "answer": forms[n % len(forms)]} for n in range(70)
    ]
    put(store, f"{work_uri}/in/data.jsonl", choices(rows))
    config = config_for(task={"kind": "choice"})
    made = run(f"{work_uri}/in/data.jsonl", "", config, store, work_uri)
    assert gold_texts(made, store) == {f"capital {n}": "Rome" for n in range(70)}
    letters = Counter(row.answer for row in read_rows(store, made.gold, GoldAnswer))
    assert set(letters) == set("ABCD")
    assert max(letters.values()) < 35

    def prompts(work: str, **task: object) -> set[str]:
        asked = config_for(task={"kind": "choice", **task})
        out = run(f"{work_uri}/in/data.jsonl", "", asked, store, f"{work_uri}/{work}")
        return {row.prompt for part in (out.prompts, out.heldout) for row in read_rows(store, part, Prompt)}

    assert prompts("again") == {
        row.prompt for part in (made.prompts, made.heldout) for row in read_rows(store, part, Prompt)
    }
    as_given = "A. Paris\nB. London\nC. Rome\nD. Berlin"
    assert prompts("plain", shuffle_options=False) == {f"capital {n}\n{as_given}" for n in range(70)}


def test_a_question_with_its_options_in_another_order_is_the_same_question(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    rows: list[dict[str, object]] = [
        {"prompt": f"q{n}", "options": options, "answer": "Rome"}
        for n in range(20)
        for options in (CAPITALS, CAPITALS[::-1])
    ]
    put(store, f"{work_uri}/in/data.jsonl", choices(rows))
    config = config_for(task={"kind": "choice"}, prepare={"heldout_fraction": 0.5})
    made = run(f"{work_uri}/in/data.jsonl", "", config, store, work_uri)
    assert made.prompts.rejected == {"duplicate": 20}


def test_broken_options_are_set_aside_with_their_reason(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    broken: dict[str, dict[str, object]] = {
        "options not a list of texts": {"options": "ABCD"},
        "not 2 to 26 options": {"options": ["only"]},
        "an option empty or repeated": {"options": ["a", " a"]},
        "half a surrogate pair": {"options": ["a", "\ud800"]},
        "answer not among the options": {"options": CAPITALS, "answer": "Oslo"},
        "prompt too long": {"options": ["x" * 300, "y"]},
    }
    good: list[dict[str, object]] = [{"prompt": f"q{n}", "options": CAPITALS} for n in range(20)]
    rows = [*good, *({"prompt": f"bad {n}", **row} for n, row in enumerate(broken.values()))]
    put(store, f"{work_uri}/in/data.jsonl", choices(rows))
    config = config_for(
        task={"kind": "choice"},
        prepare={"heldout_fraction": 0.5, "max_bad_fraction": 0.5, "max_prompt_chars": 200},
    )
    made = run(f"{work_uri}/in/data.jsonl", "", config, store, work_uri)
    assert made.prompts.rejected == dict.fromkeys(broken, 1)
    assert made.gold.num_rows == 0


def test_options_of_parquet_are_read_and_other_kinds_leave_them_alone(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    buffer = io.BytesIO()
    table = pa.table({"prompt": [f"q{n}" for n in range(30)], "answer": [2] * 30, "options": [CAPITALS] * 30})
    pq.write_table(table, buffer)
    data = f"{work_uri}/in/data.parquet"
    put(store, data, buffer.getvalue())
    half = {"heldout_fraction": 0.5}
    made = run(data, "", config_for(task={"kind": "choice"}, prepare=half), store, work_uri)
    assert set(gold_texts(made, store).values()) == {"Rome"}
    other = run(data, "", config_for(prepare=half), store, work_uri)
    assert {row.answer for row in read_rows(store, other.gold, GoldAnswer)} == {"2"}
    assert all(row.prompt.startswith("q") for row in read_rows(store, other.prompts, Prompt))
    assert not any("\n" in row.prompt for row in read_rows(store, other.prompts, Prompt))
