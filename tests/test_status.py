"""`limbeck status`: what is said of a work_uri, on a real server and a hostile one."""

import json
import os
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from limbeck import lease
from limbeck.ablation import noise
from limbeck.checkpoints import save_state
from limbeck.config import parse_config
from limbeck.lineage import newest_chain
from limbeck.manifest import commit, digest
from limbeck.records import GoldAnswer, RejectedRow
from limbeck.rows import write_rows
from limbeck.stages import generate, judge, label, prepare
from limbeck.status import OUTPUTS, StageState, inspect
from limbeck.status_text import as_json, text
from limbeck.storage import Store
from tests.audit import audited
from tests.fakes import ScriptedSampler
from tests.made_outputs import PAGE, invoke, later, made, made_report, rows
from tests.security.listing import listing


def only(states: tuple[StageState, ...]) -> StageState:
    (state,) = states
    return state


def test_a_finished_output_says_what_its_manifest_says(store: Store, work_uri: str) -> None:
    uri = f"{work_uri}/label/1f9c/labels"
    manifest = made(store, uri, wall_seconds=12.5, metrics={"label/coverage": 0.97}, rejected={"tie": 3})
    store.write_bytes(f"{uri}/part-00001-00000000.parquet", b"left by an earlier attempt")
    state = only(inspect(store, work_uri).stages)
    assert (state.state, state.reason, state.address) == ("complete", "", "label/1f9c/labels")
    assert (state.rows, state.bytes, state.other_bytes) == (3, manifest.objects[0].bytes, 26)
    assert state.manifest == manifest
    assert state.modified == store.listing(uri)[f"{uri}/manifest.json"].modified


def test_outputs_are_those_of_the_stages() -> None:
    made = {
        "prepare": prepare.Prepared._fields,
        "label": label.Labelled._fields,
        "ablation": noise.Noisy._fields,
    }
    assert made == OUTPUTS


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ({"schema_version": 99}, "another schema version"),
        ({"stage": "sft"}, "the manifest is of stage sft"),
        ({"uri": "s3://elsewhere/x", "objects": ()}, "the manifest is of s3://elsewhere/x"),
        ({"name": None}, "not a Limbeck manifest"),
        (b"{", "not a Limbeck manifest"),
        (b"\xff", "not text"),
        (b"[" * 100_000, "not a Limbeck manifest"),
        (b" " * ((32 << 20) + 1), "too large"),
    ],
    ids=["version", "stage", "address", "field", "not JSON", "not text", "too deep", "too large"],
)
def test_a_manifest_that_cannot_be_read_is_broken_and_the_rest_is_shown(
    store: Store, work_uri: str, damage: dict[str, Any] | bytes, reason: str
) -> None:
    made(store, f"{work_uri}/generate/good")
    manifest = made(store, f"{work_uri}/generate/bad")
    content = damage if isinstance(damage, bytes) else json.dumps(manifest.model_dump() | damage).encode()
    store.write_bytes(f"{manifest.uri}/manifest.json", content)
    states = {state.key: state for state in inspect(store, work_uri).stages}
    assert states["bad"].state == "broken"
    assert reason in states["bad"].reason
    assert states["good"].state == "complete"


@pytest.mark.parametrize(("content", "reason"), [(b"", "has 0 bytes, not"), (None, "is gone")])
def test_a_manifest_whose_objects_are_not_as_it_says_is_broken(
    store: Store, work_uri: str, content: bytes | None, reason: str
) -> None:
    manifest = made(store, f"{work_uri}/generate/key")
    item = manifest.objects[0]
    if content is None:
        gone = manifest.model_copy(update={"objects": (item.model_copy(update={"uri": f"{item.uri}2"}),)})
        store.write_bytes(f"{manifest.uri}/manifest.json", gone.to_json().encode())
    else:
        store.write_bytes(item.uri, content)
    state = only(inspect(store, work_uri).stages)
    assert state.state == "broken"
    assert reason in state.reason
    assert state.manifest is not None


def test_unfinished_rows_are_in_progress_with_their_parts_and_rows(store: Store, work_uri: str) -> None:
    uri = f"{work_uri}/generate/key"
    for number in range(3):
        write_rows(store, uri, rows(number + 1), name=f"part-{number:05d}")
    write_rows(store, uri, [RejectedRow(where="", reason="", row="")], name="rejected-00000")
    state = only(inspect(store, work_uri).stages)
    assert (state.state, state.num_parts, state.rows) == ("in progress", 3, 6)
    assert state.modified == max(item.modified for item in store.listing(uri).values())


def test_rows_that_wait_for_the_rest_of_their_part_are_told_apart(store: Store, work_uri: str) -> None:
    uri = f"{work_uri}/generate/key"
    for number in range(2):
        write_rows(store, uri, rows(number + 3), name=f"loose-{number:05d}")
    write_rows(store, uri, [RejectedRow(where="", reason="", row="")], name="loose-rejected-00001")
    work = inspect(store, work_uri)
    state = only(work.stages)
    assert (state.state, state.num_parts, state.rows, state.loose_rows) == ("in progress", 0, None, 7)
    page = text(work, None, work.stages[0].modified)
    assert "up to 7 rows of parts that are not whole yet, last written" in page
    made(store, uri)
    assert only(inspect(store, work_uri).stages).loose_rows == 0


def test_who_is_at_work_is_named_for_as_long_as_the_lease_lasts(store: Store, work_uri: str) -> None:
    uri = f"{work_uri}/label/key"
    with lease.held(store, uri, "label"):
        made(store, f"{uri}/labels")
        write_rows(store, f"{uri}/labelled", rows(1))
        work = inspect(store, work_uri)
        states = {state.output: state.holder for state in work.stages}
        assert states["labelled"].startswith(f"label, process {os.getpid()} on ")
        assert states["labels"] == ""
        assert f"at work: {states['labelled']}" in text(work, None, work.stages[0].modified)
    assert {state.holder for state in inspect(store, work_uri).stages} == {""}
    assert inspect(store, work_uri).num_objects == 4


def test_an_output_without_anything_to_go_on_from_is_only_started(store: Store, work_uri: str) -> None:
    write_rows(
        store, f"{work_uri}/generate/key", [RejectedRow(where="", reason="", row="")], name="rejected-00000"
    )
    state = only(inspect(store, work_uri).stages)
    assert (state.state, state.num_parts, state.rows) == ("started", 0, None)


@pytest.mark.parametrize(
    ("pointer", "found", "reason"),
    [
        (None, ("in progress", 40), ""),
        ({"step": -1, "objects": []}, ("broken", None), "not a pointer to a training state"),
        (
            {"step": 9, "objects": [{"uri": "s3://x/y", "bytes": 1, "sha256": ""}]},
            ("broken", None),
            "not whole",
        ),
    ],
    ids=["whole", "no step", "an object is gone"],
)
def test_an_unfinished_training_shows_the_step_of_its_newest_state(
    store: Store, work_uri: str, tmp_path: Path, pointer: Any, found: tuple[str, int | None], reason: str
) -> None:
    (tmp_path / "weights").write_text("w")
    for step in (20, 40):
        save_state(store, f"{work_uri}/ppo/key", step, tmp_path)
    if pointer:
        store.write_bytes(f"{work_uri}/ppo/key/state/LATEST", json.dumps(pointer).encode())
    state = only(inspect(store, work_uri).stages)
    assert (state.state, state.step) == found
    assert reason in state.reason


def test_stages_come_in_pipeline_order_and_the_newest_key_first(store: Store, work_uri: str) -> None:
    for address in ("sft/aa", "generate/aa", "prepare/aa/gold", "prepare/aa/prompts"):
        made(store, f"{work_uri}/{address}")
    later(store, f"{work_uri}/inputs")
    for address in ("generate/bb", "prepare/bb/prompts"):
        made(store, f"{work_uri}/{address}")
    store.write_bytes(f"{work_uri}/demo/1.json", b"{}")
    assert [state.address for state in inspect(store, work_uri).stages] == [
        "prepare/bb/prompts",
        "prepare/aa/prompts",
        "prepare/aa/gold",
        "generate/bb",
        "generate/aa",
        "sft/aa",
    ]  # fmt: skip


def test_what_the_newest_output_was_made_from_belongs_to_it(store: Store, work_uri: str) -> None:
    prompts = made(store, f"{work_uri}/prepare/aa/prompts", "prompts")
    gold = made(store, f"{work_uri}/prepare/aa/gold", "gold")
    other = made(store, f"{work_uri}/prepare/bb/prompts", "other")
    completions = made(store, f"{work_uri}/generate/aa", inputs={"prompts": prompts.content_hash})
    listed = digest([completions.content_hash])
    student = made(store, f"{work_uri}/sft/aa", "w", inputs={"labelled": listed}, kind="checkpoint")
    later(store, f"{work_uri}/inputs")
    model = digest([student.content_hash, "float32"])
    head = made(store, f"{work_uri}/generate/bb", "newest", inputs={"model": model})
    chain = newest_chain(store, inspect(store, work_uri).stages)
    assert chain is not None
    assert chain.head.uri == head.uri
    assert chain.uris == {head.uri, student.uri, completions.uri, prompts.uri, gold.uri}
    assert other.uri not in chain.uris


def test_of_the_same_content_under_two_keys_the_one_that_belongs_is_taken(
    store: Store, work_uri: str
) -> None:
    made(store, f"{work_uri}/prepare/aa/gold", "gold")
    prompts = made(store, f"{work_uri}/prepare/aa/prompts", "only here")
    later(store, f"{work_uri}/inputs")
    same = made(store, f"{work_uri}/prepare/bb/gold", "gold")
    inputs = {"prompts": prompts.content_hash, "gold": same.content_hash}
    later(store, f"{work_uri}/inputs")
    made(store, f"{work_uri}/judge/aa", inputs=inputs)
    chain = newest_chain(store, inspect(store, work_uri).stages)
    assert chain is not None
    assert same.uri not in chain.uris


def test_a_report_names_what_it_was_made_from_shards_too(store: Store, work_uri: str, tmp_path: Path) -> None:
    shards = [made(store, f"{work_uri}/generate/{key}", key) for key in ("aa", "bb", "cc")]
    made(store, f"{work_uri}/generate/dd", "of another run")
    origins = [{"uri": shard.uri, "more": 1} for shard in shards]
    pages = PAGE | {"report.json": json.dumps({"provenance": origins})}
    head = made_report(store, f"{work_uri}/report/aa", tmp_path / "pages", pages)
    later(store, f"{work_uri}/inputs")
    made(store, f"{work_uri}/generate/ee", "newer than the report")
    chain = newest_chain(store, inspect(store, work_uri).stages)
    assert chain is not None
    assert chain.uris == {head.uri, *(shard.uri for shard in shards)}


def test_one_listing_and_no_question_for_each_object(
    store: Store, work_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        write_rows(store, f"{work_uri}/sft/key", [GoldAnswer(prompt_id=str(number), answer="")])
    made(store, f"{work_uri}/sft/key")
    write_rows(store, f"{work_uri}/generate/key", rows(1))
    store.write_bytes(f"{work_uri}/generate/key/part-00001-00000000.parquet", b"does not tell its rows")
    assert store.endpoint
    with audited(store.endpoint) as (endpoint, accesses):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        work = inspect(Store(), work_uri)
    assert work.num_objects == 34
    kinds = Counter("list" if "list-type=2" in access.path else access.method for access in accesses)
    assert kinds == {"list": 1, "GET": 1, "HEAD": 1}


def test_what_the_stages_leave_is_what_is_shown(store: Store, work_uri: str, tmp_path: Path) -> None:
    """Three stages that ran, and one that was killed."""
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(json.dumps({"prompt": f"sum {n}", "answer": n}) for n in range(40)))
    store.write_file(data, f"{work_uri}/inputs/data.jsonl")
    settings = {"task": {"answer_pattern": r"= (\w+)"}, "generate": {"rows_per_part": 50}}
    config = parse_config(settings)
    prepared = prepare.run(f"{work_uri}/inputs/data.jsonl", "", config, store, work_uri)
    teacher = ScriptedSampler(lambda prompt, seed: "so = 1")
    completions = generate.run(
        prepared.prompts, "model", lambda: teacher, config, store, work_uri, role="teacher"
    )
    judged = ScriptedSampler(lambda prompt, seed: "yes")
    judgements = judge.run(prepared.prompts, completions, "model", lambda: judged, config, store, work_uri)
    labelled = label.run(prepared.prompts, [completions], [judgements], None, config, store, work_uri)
    student = ScriptedSampler(lambda prompt, seed: "= 2", die_after=154)
    with pytest.raises(KeyboardInterrupt):
        generate.run(prepared.prompts, "other", lambda: student, config, store, work_uri, role="student")

    work = inspect(store, work_uri)
    assert Counter((state.stage, state.state) for state in work.stages) == {
        ("prepare", "complete"): 3,
        ("generate", "complete"): 1,
        ("generate", "in progress"): 1,
        ("judge", "complete"): 1,
        ("label", "complete"): 2,
    }
    killed = next(state for state in work.stages if state.state == "in progress")
    assert (killed.num_parts, killed.rows) == (2, 100)
    chain = newest_chain(store, work.stages)
    assert chain is not None
    everything = [*prepared, completions, judgements, *labelled]
    assert chain.uris == {manifest.uri for manifest in everything}

    page = invoke("status", work_uri)
    assert page.exit_code == 0, page.output
    assert "7 complete, 1 in progress" in page.output.splitlines()[0]
    assert killed.loose_rows == 50
    assert "2 finished parts, up to 50 rows of parts that are not whole yet, last written" in page.output
    assert "coverage 1, agreement 1" in page.output
    fields = json.loads(invoke("status", work_uri, "--json").output)
    assert set(fields["chain"]) == chain.uris
    assert [state["state"] for state in fields["stages"]].count("complete") == 7
    assert fields["stages"][0]["manifest"]["inputs"] == prepared.prompts.inputs
    assert "objects" not in fields["stages"][0]["manifest"]


EVIL = "\x1b]0;owned\x07\x9b31m\nforged\r\u202e\ud7ff"


def test_hostile_names_do_nothing_to_a_terminal(store: Store, work_uri: str) -> None:
    manifest = made(
        store, f"{work_uri}/sft/key", name=EVIL, code_version=EVIL, config_hash=EVIL, rejected={EVIL: 1},
    )  # fmt: skip
    figures = {"metrics": {"sft/loss": float("nan"), EVIL: 1.0}, "wall_seconds": float("inf")}
    content = json.dumps(manifest.model_dump() | figures)
    store.write_bytes(f"{manifest.uri}/manifest.json", content.encode())
    commit(store, manifest.model_copy(update={"uri": f"{work_uri}/ppo/key", "stage": EVIL, "objects": ()}))
    work = inspect(store, work_uri)
    page = text(work, None, work.stages[0].modified + timedelta(days=3))
    assert all(line.isprintable() and len(line) < 1000 for line in page.split("\n"))
    assert "\\x1b]0;owned" in page
    assert not page.startswith("forged")
    machine = as_json(work, newest_chain(store, work.stages))
    assert machine.isascii()
    assert "\x1b" not in machine
    assert json.loads(machine)["stages"][0]["manifest"]["metrics"]["sft/loss"] is None


def test_a_listing_of_hostile_keys_breaks_only_what_they_touch(monkeypatch: pytest.MonkeyPatch) -> None:
    with listing() as hostile:
        monkeypatch.setenv("AWS_ENDPOINT_URL", hostile.endpoint)
        hostile.keys = [
            "w/generate/\x1b[31mred/manifest.json",
            "w/generate/../manifest.json",
            "w/generate//manifest.json",
            "w/prepare/key/prompts/..\\..\\x",
            "w/label/key/labels/part-00000-00000000.parquet",
            "w/../../etc/passwd",
        ]
        work = inspect(Store(), "s3://b/w")
    states = {state.address: state for state in work.stages}
    assert len(states) == 5
    assert states["label/key/labels"].state == "in progress"
    assert {state.state for address, state in states.items() if address != "label/key/labels"} == {"broken"}
    assert all(line.isprintable() for line in text(work, None, work.stages[0].modified).split("\n"))
    assert hostile.asked == ["/b/w/label/key/labels/part-00000-00000000.parquet"]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (
            ("status", "out/demo"),
            2,
            "bad setting `work_uri` in the command line: expected must be an object-store",
        ),
        (("status", "s3://no-such-bucket/work"), 4, "no such bucket"),
        (("report", "s3://test/empty"), 3, "no finished report in s3://test/empty: got nothing that a stage"),
        (("status", "s3://b/w", "--store", "none"), 2, "no embedded store there in --store none"),
    ],
)
def test_a_mistake_is_one_line(
    store: Store, arguments: tuple[str, ...], exit_code: int, message: str
) -> None:
    result = invoke(*arguments)
    assert result.exit_code == exit_code
    assert result.stderr.startswith(f"limbeck: error {exit_code}: {message}")
    assert result.stderr.count("\n") == 1


def test_where_nothing_is_status_says_so(store: Store, work_uri: str) -> None:
    result = invoke("status", work_uri)
    assert (result.exit_code, result.output) == (
        0, f"{work_uri}: no stage has written anything; 0 objects, 0 B\n"
    )  # fmt: skip
