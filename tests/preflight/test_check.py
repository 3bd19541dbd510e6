"""The whole preflight, as the component and as `check_run_file`: everything at once, quiet on success."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from limbeck.errors import ConfigError, DataError, StorageError
from limbeck.manifest import Manifest, commit
from limbeck.planning.outline import parse_outline
from limbeck.preflight import Asked, Finding, check, check_run_file, conclude
from limbeck.preflight.findings import warning
from limbeck.run_file import RunFile
from limbeck.storage import Store
from tests.preflight.broken_store import broken_store
from tests.preflight.conftest import CONFIG, ROWS, STAGES, lines, with_settings


def component(asked: Asked, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the component's task in a process of its own, which says what heavy modules it has loaded."""
    program = (
        "import json, sys\nfrom limbeck import tasks\n"
        "print(json.dumps(tasks.preflight(**json.loads(sys.argv[1]))._asdict()))\n"
        "print(sorted({'torch', 'transformers', 'vllm', 'kfp', 'kubernetes'} & set(sys.modules)))"
    )
    return subprocess.run(
        [sys.executable, "-c", program, json.dumps(asdict(asked))],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


def test_a_run_that_nothing_stands_against_passes_with_one_line(asked: Asked, store: Store) -> None:
    done = component(asked)
    assert done.stderr == ""
    said, given, loaded = done.stdout.splitlines()
    assert said.startswith("limbeck: preflight: nothing stands against it; checked: settings; ")
    assert f"{asked.work_uri} reads, writes, lists" in said
    assert "teacher: a GPU holds 4096 sequences of 64 tokens" in said
    assert json.loads(given)["ppo_gpus"] == "1"
    assert json.loads(given)["ppo_node_selector"] == asked.node_selector
    outlined = parse_outline(json.loads(given)["outline"], "preflight")
    assert (outlined.stages, outlined.num_shards) == (tuple(asked.stages), asked.num_shards)
    assert {name: shape.hidden for name, shape in outlined.shapes.items()} == {"teacher": 32, "student": 32}
    assert loaded == "[]"
    assert store.sizes(asked.work_uri) == {}


def test_everything_that_is_wrong_is_said_at_once_and_the_first_error_ends_the_task(
    asked: Asked, store: Store
) -> None:
    wrong = replace(
        with_settings(asked, engine={"tensor_parallel_size": 2}, evaluate={"max_tokens": 64}),
        prompts=f"{asked.prompts}x.jsonl",
        teacher=f"{asked.teacher}/none",
        work_uri="s3://absent-bucket/work",
    )
    done = component(wrong)
    *found, last = done.stdout.splitlines()
    expected = [
        "error: no such bucket in s3://absent-bucket/work",
        f"error: no such file in `prompts` in {wrong.prompts}",
        f"error: not a Hugging Face checkpoint in {wrong.teacher}",
        "error: completions leave no room for a prompt in config.evaluate.max_tokens",
        "error: attention heads that cannot be shared out evenly in config.engine.tensor_parallel_size",
        "error: fewer GPUs than the engine or the processes want",
    ]
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(f"limbeck: preflight: {start}")
    assert last.startswith("limbeck: error 4: preflight found 6 errors. ")
    assert done.returncode == 4
    with pytest.raises(StorageError, match="no such bucket"):  # nor was it made by trying it
        store.sizes(wrong.work_uri)


def test_what_teacher_and_student_have_in_common_is_said_once(asked: Asked) -> None:
    same = with_settings(replace(asked, teacher=asked.student), engine={"max_model_len": 200})
    assert [line.partition(" in ")[0] for line in lines(check(same).findings)] == [
        "error: the engine's context is longer than the model's"
    ]


def test_a_store_that_breaks_a_promise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with broken_store("lists late") as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        (line,) = lines(check(Asked(work_uri="s3://b/work", stages=["label"])).findings)
    assert line.startswith("error: the object store is no S3: a new object is missing from the listing")


@pytest.mark.parametrize(
    ("fault", "promises"),
    [("none", "takes parts and conditions"), ("ignores conditions", "takes parts")],
)
def test_only_what_the_store_keeps_is_said_of_it(
    fault: str, promises: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with broken_store(fault) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        outcome = check(Asked(work_uri="s3://b/work", stages=["label"]))
    assert outcome.checked[1] == f"s3://b/work reads, writes, lists, {promises}"


def test_settings_that_cannot_be_read_hide_nothing_else(asked: Asked) -> None:
    found = lines(check(replace(asked, config={"seed": -1}, student=f"{asked.student}/none")).findings)
    assert [line.partition(" in ")[0] for line in found] == [
        "error: bad setting `seed`",
        "error: not a Hugging Face checkpoint",
    ]


def test_a_credential_stands_in_no_line_and_no_address_with_one_is_asked_for(asked: Asked) -> None:
    secret = "AKIAABCDEFGHIJKLMNOP"
    done = component(
        replace(asked, teacher=f"s3://{secret}/teacher", config=CONFIG | {"api_key": "hunter22"})
    )
    assert done.returncode == 2
    assert "a credential in a parameter, where whoever sees the run reads it in teacher." in done.stdout
    assert "reads it in config.api_key." in done.stdout
    assert "missing parameter" not in done.stdout
    for word in (secret, "hunter22", os.environ["AWS_SECRET_ACCESS_KEY"]):
        assert word not in done.stdout + done.stderr


def test_a_store_that_takes_no_key_is_said_once(asked: Asked) -> None:
    done = component(asked, AWS_SECRET_ACCESS_KEY="wrong-secret")
    first, last = done.stdout.splitlines()
    assert "error: the object store refuses these credentials" in first
    assert last.startswith("limbeck: error 4: preflight found ")
    assert "wrong-secret" not in done.stdout


def test_an_address_that_is_none_does_not_keep_the_others_from_being_checked(asked: Asked) -> None:
    wrong = replace(
        asked, work_uri="/scratch/work", heldout="gs://bucket/heldout.jsonl", prompts="nowhere.jsonl"
    )
    assert [line.partition(": expected")[0] for line in lines(check(wrong).findings)] == [
        "error: not an object-store address in '/scratch/work'",
        "error: not an object-store address in 'gs://bucket/heldout.jsonl'",
        "error: no such file in `prompts` in nowhere.jsonl",
    ]


def test_memory_that_nobody_knows_is_a_warning_unless_no_gpu_is_asked_for(asked: Asked) -> None:
    unknown = with_settings(asked, engine={"gpu_memory_gib": None})
    (line,) = lines(check(unknown).findings)
    assert line.startswith(
        "warning: GPU memory was not checked, as its size is not known here in config.engine.gpu"
    )
    assert check(replace(unknown, gpus=0)).findings == []


def test_missing_answers_are_told_by_what_stays_unknown(asked: Asked, store: Store) -> None:
    bare = f"{asked.work_uri}-data/bare.jsonl"
    store.write_bytes(bare, b'{"prompt": "sum a b"}\n')

    def said(**changes: Any) -> list[str]:
        return [line.partition(" in ")[0] for line in lines(check(replace(asked, **changes)).findings)]

    assert said(prompts=bare) == ["warning: no `answer`, so accuracies stay unknown"]
    assert said(heldout=bare) == ["warning: no `answer`, so accuracies stay unknown"]
    labels = "warning: no `answer`, so how often the labels are right stays unknown"
    assert said(prompts=bare, heldout=asked.prompts) == [labels]
    assert said(prompts=bare, stages=["prepare", "generate", "judge", "label"]) == [labels]
    bound = "error: no `answer`, which the upper bound learns from"
    assert said(prompts=bare, stages=[*asked.stages, "ablation"]) == [bound]
    assert said(heldout=bare, stages=[*asked.stages, "ablation"]) == [
        "warning: no `answer`, so accuracies stay unknown"
    ]


FITS: dict[str, tuple[dict[str, Any], str]] = {
    "context": ({"engine": {"max_model_len": 200}}, "error: the engine's context is longer than the model's"),
    "rows": ({"sft": {"max_length": 999}}, "warning: training rows may be longer than the model's context"),
    "words": ({"judge": {"yes": "no"}}, "error: the verdict words begin with the same token"),
    "nodes": ({"sft": {"deepspeed": {"nodes": 2}}}, "warning: TrainJobs were not checked from here"),
    "memory": (
        {"engine": {"gpu_memory_gib": 0.5}},
        "warning: GPU memory may be too small for the longest rows",
    ),
    "code": ({"student": {"trust_remote_code": True}}, "warning: code inside this checkpoint may run"),
}


@pytest.mark.parametrize(("changes", "message"), FITS.values(), ids=FITS)
def test_models_are_checked_against_the_settings(changes: dict[str, Any], message: str, asked: Asked) -> None:
    found = lines(check(with_settings(asked, **changes)).findings)
    assert any(line.startswith(message) for line in found)


def test_a_critic_that_starts_from_another_vocabulary_is_found(
    asked: Asked, folder: Path, store: Store
) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {"a": 12, "b": 11}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    other = f"{asked.work_uri}-other"
    for path in folder.iterdir():
        store.write_file(path, f"{other}/{path.name}")
    apart = replace(asked, teacher=other)
    assert check(apart).findings == []
    (line,) = lines(check(with_settings(apart, reward={"init": "teacher"})).findings)
    assert line.startswith("error: the critic cannot start from the reward model")


def test_a_run_file_is_checked_where_its_files_lie(
    made: Path, tmp_path: Path, work_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, "teacher")
    Path("prompts.jsonl").write_bytes(ROWS)
    run_file = RunFile.model_validate(
        {"work_uri": work_uri, "prompts": "prompts.jsonl", "teacher": "teacher", "student": "student"}
        | {"config": CONFIG}
    )
    (line,) = lines(check_run_file(run_file, STAGES).findings)
    assert line.startswith("error: no such folder in `student`")

    shutil.copytree(made, "student")
    assert check_run_file(run_file, STAGES).findings == []


def test_models_that_fit_neither_gpu_nor_disk_are_found_by_their_headers(
    made: Path, tmp_path: Path, work_uri: str
) -> None:
    """The weights are a hole in a file: nothing of them is read."""
    shutil.copytree(made, tmp_path / "huge")
    count = 1 << 40
    header = json.dumps({"w": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}).encode()
    with (tmp_path / "huge" / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 4 * count)
    (tmp_path / "p.jsonl").write_bytes(ROWS)
    run_file = RunFile.model_validate(
        {"work_uri": work_uri, "prompts": str(tmp_path / "p.jsonl"), "config": CONFIG}
        | {"teacher": str(tmp_path / "huge"), "student": str(tmp_path / "huge")}
    )
    found = lines(check_run_file(run_file, STAGES).findings)
    assert [line.partition(": expected")[0] for line in found] == [
        f"warning: little scratch space for stage ppo in {tempfile.gettempdir()}",
        f"error: too little GPU memory in sampling with {tmp_path}/huge",
        "error: too little GPU memory in stage sft",
        "error: too little GPU memory in stage reward",
        "error: too little GPU memory in stage ppo",
    ]


def test_a_run_file_without_any_store_is_checked_as_far_as_it_goes(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    (tmp_path / "p.jsonl").write_bytes(ROWS)
    run_file = RunFile.model_validate(
        {"prompts": str(tmp_path / "p.jsonl"), "teacher": str(made), "student": str(made), "config": CONFIG}
    )
    (line,) = lines(check_run_file(run_file, STAGES).findings)
    assert line.startswith("warning: the object store was not checked, as none is named in AWS_ENDPOINT_URL")


REWARDS = ["generate", "label", "reward", "ppo", "evaluate", "report"]


def finished(
    store: Store, uri: str, kind: str, inputs: dict[str, str] | None = None, folder: Path | None = None
) -> Manifest:
    """What an earlier run has left."""
    made = Manifest(
        stage=uri.split("/")[-3 if kind != "checkpoint" else -2],
        kind=kind,
        name=kind,
        uri=uri,
        objects=store.write_folder(folder, uri) if folder else (),
        inputs=inputs or {},
        config_hash="",
        code_version="",
    )
    return commit(store, made)


def prepared(store: Store, work_uri: str, folder: Path) -> Manifest:
    """A finished `prepare` and, below it, the prompts; a file stands for the rows."""
    for kind in ("heldout", "gold"):
        finished(store, f"{work_uri}/prepare/key/{kind}", kind)
    return finished(store, f"{work_uri}/prepare/key/prompts", "prompts", folder=folder)


def going_on(work_uri: str, **parameters: Any) -> RunFile:
    """The run file of a run that takes over what is finished."""
    earlier = {
        "prepared_uri": f"{work_uri}/prepare/key",
        "label_uri": f"{work_uri}/label/key",
        "checkpoint": f"{work_uri}/sft/key",
    }
    return RunFile.model_validate({"work_uri": work_uri, "config": CONFIG} | earlier | parameters)


def test_a_run_that_goes_on_from_an_earlier_one_finds_its_results_and_checkpoint(
    made: Path, store: Store, work_uri: str
) -> None:
    prompts = prepared(store, work_uri, made)
    inputs = {"prompts": prompts.content_hash}
    finished(store, f"{work_uri}/label/key/labels", "labels", inputs)
    finished(store, f"{work_uri}/sft/key", "checkpoint", folder=made)
    outcome = check_run_file(going_on(work_uri), REWARDS)
    (line,) = lines(outcome.findings)
    assert line.startswith("error: nothing finished in `label_uri`")
    assert "expected a manifest of labelled" in line
    assert "student with 0.0 million weights" in outcome.checked[-2]

    finished(store, f"{work_uri}/label/key/labelled", "labelled", inputs)
    assert check_run_file(going_on(work_uri), REWARDS).findings == []
    assert check_run_file(going_on(work_uri, checkpoint=str(made)), REWARDS).findings == []


def test_labels_of_other_prompts_than_the_prepared_ones_are_found(
    made: Path, store: Store, work_uri: str
) -> None:
    prepared(store, work_uri, made)
    for kind in ("labels", "labelled"):
        finished(store, f"{work_uri}/label/key/{kind}", kind, {"prompts": "of another data set"})
    (line,) = lines(check_run_file(going_on(work_uri, checkpoint=str(made)), REWARDS).findings)
    assert line.startswith(
        f"error: labels of other prompts than those in `prepared_uri` in {work_uri}/label/key"
    )


def test_a_damaged_tokenizer_is_found_whoever_reads_it(asked: Asked, folder: Path, store: Store) -> None:
    (folder / "tokenizer.json").write_text('{"model": {}}')
    uri = f"{asked.work_uri}-damaged"
    for path in folder.iterdir():
        store.write_file(path, f"{uri}/{path.name}")

    def said(**changes: Any) -> list[str]:
        return [line.partition(": ")[2][:60] for line in lines(check(replace(asked, **changes)).findings)]

    expected = [f"cannot read tokenizer.json in {uri}"[:60]]
    assert said(teacher=uri) == said(student=uri) == expected
    assert said(stages=["evaluate"], models=[uri]) == expected
    assert said(student=uri, config={"seed": -1})[-1:] == expected


def test_the_summary_counts_and_ends_with_the_first_errors_class(capsys: pytest.CaptureFixture[str]) -> None:
    findings = [warning(ConfigError("late")), Finding(DataError("bad")), Finding(ConfigError("worse"))]
    with pytest.raises(DataError, match="preflight found 2 errors, 1 warning"):
        conclude(findings, ["settings"])
    assert capsys.readouterr().out.splitlines() == [
        "limbeck: preflight: error: bad",
        "limbeck: preflight: error: worse",
        "limbeck: preflight: warning: late",
    ]
    conclude(findings[:1], ["settings"])
    assert capsys.readouterr().out.splitlines() == [
        "limbeck: preflight: warning: late",
        "limbeck: preflight: nothing stands against it; checked: settings",
    ]
