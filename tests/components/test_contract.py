"""docs/components.md tells other teams what lies in a manifest and in its Parquet parts; it must be so."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any, get_args

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from limbeck.manifest import SCHEMA_VERSION, Manifest, parse
from limbeck.records import (
    Completion,
    EvalResult,
    GoldAnswer,
    Judgement,
    LabelledCompletion,
    Prompt,
    PseudoLabel,
    Row,
)
from limbeck.rows import read_rows, write_rows
from limbeck.storage import Store, StoredObject
from limbeck.tasks.artifacts import Kind
from tests import stage_process

ROWS: dict[str, type[Row]] = {
    "prompts": Prompt,
    "heldout": Prompt,
    "gold": GoldAnswer,
    "completions": Completion,
    "judgements": Judgement,
    "labels": PseudoLabel,
    "labelled": LabelledCompletion,
    "results": EvalResult,
}
SAMPLES = {"string": "text", "integer": 1, "number": 0.5, "boolean": True}
DOCS = Path("docs/components.md").read_text()


def table(text: str) -> list[list[str]]:
    """The rows of the first table of a text, without its head."""
    lines = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert lines
    rows = [line[2:-2].split(" | ") for line in lines[0].splitlines()]
    return [[row[0].strip("`"), *row[1:]] for row in rows[2:]]


def section(kind: str) -> str:
    """What the docs say of a kind."""
    parts = re.split(r"^### (.+)\n", DOCS, flags=re.MULTILINE)
    return next(
        text for heads, text in zip(parts[1::2], parts[2::2], strict=True) if kind in heads.split(", ")
    )


def columns(row_type: type[Row]) -> dict[str, tuple[Any, bool]]:
    """A value for each field, and whether it may be null."""
    found = {}
    for name, field in row_type.model_json_schema()["properties"].items():
        choices = [item["type"] for item in field.get("anyOf", [field])]
        found[name] = (SAMPLES[choices[0]], "null" in choices)
    return found


def test_every_kind_has_its_section() -> None:
    assert set(get_args(Kind)) == set(ROWS) | {"checkpoint", "reward_model", "report"}
    for kind in get_args(Kind):
        assert section(kind)


@pytest.mark.parametrize("kind", ROWS)
def test_the_columns_of_a_part_are_those_of_the_docs(
    kind: str, store: Store, work_uri: str, tmp_path: Path
) -> None:
    fields = columns(ROWS[kind])
    row = ROWS[kind].model_construct(**{name: value for name, (value, _) in fields.items()})
    part = store.read_file(write_rows(store, work_uri, [row]), tmp_path / "part.parquet")
    written = [
        [field.name, f"{field.type}{' or null' if fields[field.name][1] else ''}"]
        for field in pq.read_schema(part)
    ]
    assert [line[:2] for line in table(section(kind))] == written
    assert all(line[2] for line in table(section(kind)))


def test_the_fields_of_a_manifest_are_those_of_the_docs() -> None:
    text = DOCS.partition("## What travels")[2]
    fields = {line[0]: line[2] for line in table(text)}
    assert set(fields) == set(Manifest.model_fields)
    assert fields["schema_version"].startswith(f"{SCHEMA_VERSION}. ")
    assert [line[0] for line in table(text.partition("Each of `objects`:")[2])] == list(
        StoredObject.model_fields
    )


def foreign_manifest(folder: Path, kind: str, uri: str, rows: list[dict[str, Any]]) -> dict[str, str]:
    """Rows and their manifest as another team writes them, with nothing but the docs."""
    path = folder / f"{kind}.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    part = f"{uri}/part-00000-{digest[:8]}.parquet"
    bucket, _, key = part.removeprefix("s3://").partition("/")
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=content)
    manifest = {
        "schema_version": 1,
        "stage": "theirs",
        "kind": kind,
        "name": kind,
        "uri": uri,
        "objects": [{"uri": part, "bytes": len(content), "sha256": digest, "rows": len(rows)}],
        "inputs": {},
        "config_hash": "",
        "code_version": "",
    }
    artifact = folder / kind
    artifact.write_text(json.dumps(manifest))
    return {"path": str(artifact)}


def test_completions_that_another_tool_wrote_can_be_labelled(
    store: Store, work_uri: str, tmp_path: Path
) -> None:
    answers = {"p0": ["4", "4", "5"], "p1": ["9", "9", "9"]}
    prompts = [{"prompt_id": prompt_id, "prompt": f"question {prompt_id}"} for prompt_id in answers]
    completions = [
        {
            "completion_id": f"{prompt_id}-{index}",
            "prompt_id": prompt_id,
            "source": "teacher",
            "text": f"It is {answer}.",
            "answer": answer,
            "temperature": 1.0,
            "sample_index": index,
            "seed": index,
            "logprob": -1.0,
            "num_tokens": 4,
            "finish_reason": "stop",
        }
        for prompt_id, given in answers.items()
        for index, answer in enumerate(given)
    ]
    stage_process.finish(
        "label",
        tmp_path,
        prompts=foreign_manifest(tmp_path, "prompts", f"{work_uri}/theirs/prompts", prompts),
        completions=foreign_manifest(tmp_path, "completions", f"{work_uri}/theirs/completions", completions),
        judgements=None,
        given_labels=None,
        work_uri=work_uri,
        config={"label": {"rule": "majority", "validation_prompts": 1}},
        labels={"path": str(tmp_path / "labels")},
        labelled={"path": str(tmp_path / "labelled")},
    )
    labels = read_rows(store, parse((tmp_path / "labels").read_text(), "labels"), PseudoLabel)
    assert {row.prompt_id: row.answer for row in labels} == {"p0": "4", "p1": "9"}
