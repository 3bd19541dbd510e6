"""Rows and manifests, against a real server."""

from pathlib import Path

import pytest

from limbeck.errors import DataError, StorageError
from limbeck.manifest import Manifest, commit, digest, find, parse, require, stage_uri
from limbeck.records import GoldAnswer, Prompt, PseudoLabel
from limbeck.rows import finished_parts, read_rows, write_rows
from limbeck.storage import Store


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


def test_rows_of_another_type_are_refused_with_their_place(store: Store, work_uri: str) -> None:
    item = write_rows(store, work_uri, [Prompt(prompt_id="1", prompt="x")])
    with pytest.raises(DataError, match=r"not a row of GoldAnswer in s3://.*part-00000.*row 0, field answer"):
        read_rows(store, manifest(work_uri, item), GoldAnswer)


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
    commit(store, lost)
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


@pytest.mark.parametrize("text", ["", "[]", '{"stage": "x"}', "not json"])
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"not a Limbeck manifest in here"):
        parse(text, "here")


def test_digests_ignore_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 2, "b": 1})
