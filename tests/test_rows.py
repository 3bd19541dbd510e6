"""Rows and manifests, against a real server."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from limbeck.errors import DataError, StorageError
from limbeck.manifest import Manifest, commit, digest, find, load_manifest, parse, require, stage_uri
from limbeck.records import GoldAnswer, Judgement, Prompt, PseudoLabel, RejectedRow
from limbeck.rows import (
    BATCH_ROWS,
    PartWriter,
    finished_parts,
    iter_rows,
    parquet_rows,
    read_rows,
    write_rows,
)
from limbeck.storage import Store, StoredObject
from tests.audit import audited


def manifest(uri: str, *objects: object) -> Manifest:
    return Manifest.model_validate(
        {
            "stage": "prepare",
            "kind": "prompts",
            "name": "prompts",
            "uri": uri,
            "objects": objects,
            "inputs": {},
            "config_hash": "c",
            "code_version": "v",
        }
    )


def test_rows_come_back_as_they_went(store: Store, work_uri: str) -> None:
    rows = [
        PseudoLabel(prompt_id="1", answer=None, vote_share=0.5, num_votes=2, reason="tie", validation=False),
        PseudoLabel(
            prompt_id="2", answer="ä\n'\"", vote_share=1.0, num_votes=1, reason="labelled", validation=False
        ),
    ]
    item = write_rows(store, work_uri, rows)
    assert read_rows(store, manifest(work_uri, item), PseudoLabel) == rows
    assert item.rows == 2


def test_a_part_is_found_again_by_its_name(store: Store, work_uri: str) -> None:
    item = write_rows(store, work_uri, [Prompt(prompt_id="1", prompt="x")], name="part-00007")
    assert finished_parts(store, work_uri) == {"part-00007": item}


def test_parts_tell_what_they_are_and_only_those_of_others_are_asked(
    store: Store, work_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("part-00000", "part-00001", "part-123456", "rejected-00001")
    items = {name: write_rows(store, work_uri, numbered(3), name=name) for name in names}
    (tmp_path / "part").write_bytes(b"others")
    foreign = store.write_file(tmp_path / "part", f"{work_uri}/part-00009-00000000.parquet", rows=7)
    store.write_bytes(f"{work_uri}/part-00010.parquet", b"no part")
    assert store.endpoint
    with audited(store.endpoint) as (endpoint, accesses):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        found = finished_parts(Store(), work_uri)
    assert found == items | {"part-00009": foreign}
    kinds = Counter("list" if "list-type=2" in access.path else access.method for access in accesses)
    assert kinds == {"list": 1, "HEAD": 1}


def test_rows_of_another_type_are_refused_with_their_place(store: Store, work_uri: str) -> None:
    item = write_rows(store, work_uri, [Prompt(prompt_id="1", prompt="x")])
    with pytest.raises(DataError, match=r"not a row of GoldAnswer in s3://.*part-00000.*row 0, field answer"):
        read_rows(store, manifest(work_uri, item), GoldAnswer)


def numbered(count: int) -> list[Prompt]:
    return [Prompt(prompt_id=str(number), prompt=f"question {number}") for number in range(count)]


def written(store: Store, uri: str, rows: Iterable[Prompt], rows_per_part: int) -> list[StoredObject]:
    with PartWriter(store, uri, Prompt, rows_per_part=rows_per_part) as out:
        for row in rows:
            out.add(row)
    assert out.num_rows == sum(item.rows for item in out.objects)
    return out.objects


@pytest.mark.parametrize(
    ("num_rows", "rows_per_part", "parts"),
    [
        (0, 3, []),
        (1, 3, [1]),
        (3, 3, [3]),
        (7, 3, [3, 3, 1]),
        (2 * BATCH_ROWS + 1, BATCH_ROWS + 5, [BATCH_ROWS + 5, BATCH_ROWS - 4]),
    ],
)
def test_a_stream_of_rows_becomes_parts_of_bounded_size(
    store: Store, work_uri: str, num_rows: int, rows_per_part: int, parts: list[int]
) -> None:
    rows = numbered(num_rows)
    objects = written(store, work_uri, rows, rows_per_part)
    assert [item.rows for item in objects] == parts
    names = [item.uri.rsplit("/", 1)[1] for item in objects]
    assert [name[:11] for name in names] == [f"part-{number:05d}-" for number in range(len(parts))]
    assert read_rows(store, manifest(work_uri, *objects), Prompt) == rows


def test_the_same_stream_gives_the_same_names(store: Store, work_uri: str) -> None:
    first = written(store, f"{work_uri}/a", numbered(7), 3)
    again = written(store, f"{work_uri}/b", numbered(7), 3)
    assert [item.sha256 for item in first] == [item.sha256 for item in again]
    assert [item.uri.rsplit("/", 1)[1] for item in first] == [item.uri.rsplit("/", 1)[1] for item in again]


def test_after_an_error_the_unfinished_part_is_not_uploaded(store: Store, work_uri: str) -> None:
    def breaking_off() -> Iterator[Prompt]:
        yield from numbered(4)
        raise KeyError

    with pytest.raises(KeyError):
        written(store, work_uri, breaking_off(), 3)
    assert [item.rows for item in finished_parts(store, work_uri).values()] == [3]


def test_empty_shards_and_parts_without_rows_are_read_over(
    store: Store, work_uri: str, tmp_path: Path
) -> None:
    schema = pa.schema({"prompt_id": pa.string(), "prompt": pa.string()})
    pq.write_table(schema.empty_table(), tmp_path / "empty.parquet")
    empty = store.write_file(tmp_path / "empty.parquet", f"{work_uri}/part-00001-00000000.parquet")
    bad = write_rows(store, work_uri, [RejectedRow(where="x", reason="y", row="z")], name="rejected-00000")
    first, last = (write_rows(store, work_uri, [row], name="part-00000") for row in numbered(2))
    shards = [manifest(work_uri), manifest(work_uri, first, empty, bad), manifest(work_uri, last)]
    assert list(iter_rows(store, shards, Prompt)) == numbered(2)


def test_parts_are_fetched_one_at_a_time(store: Store, work_uri: str) -> None:
    """The second part is gone, which nobody notices before the rows of the first one are read."""
    first, second = written(store, work_uri, numbered(4), 2)
    gone = second.model_copy(update={"uri": second.uri.replace("part-00001", "part-00009")})
    rows = iter_rows(store, [manifest(work_uri, first, gone)], Prompt)
    assert [next(rows), next(rows)] == numbered(2)
    with pytest.raises(StorageError, match="part-00009"):
        next(rows)


def test_a_bad_row_of_the_third_part_is_named(store: Store, work_uri: str) -> None:
    values = [0.1, 0.2, 0.3, 0.4, 0.5, 1.5]
    with PartWriter(store, work_uri, Judgement, rows_per_part=2) as out:
        for value in values:
            out.add(Judgement.model_construct(completion_id="c", prompt_id="p", p_correct=value))
    rows = iter_rows(store, [manifest(work_uri, *out.objects)], Judgement)
    assert [next(rows).p_correct for _ in range(5)] == values[:5]
    place = rf"not a row of Judgement in {out.objects[2].uri}, row 1, field p_correct"
    with pytest.raises(DataError, match=rf"{place}: expected .*less than or equal to 1, got 1\.5"):
        next(rows)


def test_a_part_that_is_no_parquet_file_is_named(store: Store, work_uri: str, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"PAR1 but no more")
    item = store.write_file(tmp_path / "part", f"{work_uri}/part-00000-00000000.parquet")
    with pytest.raises(DataError, match=r"not a Parquet file in s3://.*part-00000-00000000\.parquet"):
        read_rows(store, manifest(work_uri, item), Prompt)


ODD_TIMES: dict[str, Any] = {
    "nanoseconds": pa.array([1, 2], pa.timestamp("ns")),
    "a day far away": pa.array([1 << 50, 0], pa.timestamp("s")),
}


@pytest.mark.parametrize("times", ODD_TIMES.values(), ids=ODD_TIMES)
def test_columns_that_nobody_asked_for_are_not_read(times: Any, tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table({"made": times, "prompt": ["a", "b"], "answer": ["1", None]}), path)
    wanted = ("prompt", "answer", "hint")
    expected = [{"prompt": "a", "answer": "1"}, {"prompt": "b", "answer": None}]
    assert list(parquet_rows(path, "here", wanted)) == expected
    assert list(parquet_rows(path, "here", ("hint",))) == [{}, {}]


def test_values_that_python_has_no_type_for_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table({"answer": ODD_TIMES["a day far away"]}), path)
    with pytest.raises(DataError, match="not a Parquet file in here: got Python int too large"):
        list(parquet_rows(path, "here", ("answer",)))


def test_a_stage_is_complete_only_with_its_manifest_and_all_objects(
    store: Store, work_uri: str, tmp_path: Path
) -> None:
    item = write_rows(store, work_uri, [Prompt(prompt_id="1", prompt="x")])
    made = manifest(work_uri, item)
    assert find(store, work_uri) is None
    commit(store, made)
    assert find(store, work_uri) == made
    require(store, made)
    lost = manifest(work_uri, item, {"uri": f"{work_uri}/gone", "bytes": 3, "sha256": "0"})
    store.write_bytes(f"{work_uri}/manifest.json", lost.to_json().encode())
    assert find(store, work_uri) is None
    with pytest.raises(StorageError, match=r"is gone in .*/gone: expected 3 bytes, got no such object"):
        require(store, lost)


def test_the_prefix_follows_inputs_and_settings() -> None:
    def uri(**changes: str) -> str:
        values = {"stage": "label", "config_hash": "c", **changes}
        return stage_uri(
            "s3://b/w/", values["stage"], {"prompts": values.get("prompts", "p")}, values["config_hash"]
        )

    assert uri() == uri()
    assert uri().startswith("s3://b/w/label/")
    assert len({uri(), uri(config_hash="d"), uri(prompts="q"), uri(stage="judge")}) == 4


def test_content_and_not_place_or_time_identifies_a_manifest() -> None:
    def made(uri: str, sha256: str, seconds: float) -> str:
        item = {"uri": f"{uri}/part", "bytes": 1, "sha256": sha256}
        return manifest(uri, item).model_copy(update={"wall_seconds": seconds}).content_hash

    assert made("s3://a/x", "1", 1.0) == made("s3://b/y", "1", 2.0)
    assert made("s3://a/x", "1", 1.0) != made("s3://a/x", "2", 1.0)


@pytest.mark.parametrize("text", ["", "[]", '{"stage": "x"}', "not json", b'{"stage": "\xff"}'])
def test_what_is_no_manifest_is_refused(text: str | bytes) -> None:
    with pytest.raises(DataError, match=r"not a Limbeck manifest in here"):
        parse(text, "here")


def test_a_stored_manifest_that_is_no_text_is_one_line(store: Store, work_uri: str) -> None:
    store.write_bytes(f"{work_uri}/manifest.json", b'{"stage": "\xff"}')
    message = rf"not a Limbeck manifest in {work_uri}/manifest\.json"
    with pytest.raises(DataError, match=message):
        find(store, work_uri)
    with pytest.raises(DataError, match=message):
        load_manifest(store, work_uri, "prompts")


def test_digests_ignore_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 2, "b": 1})
