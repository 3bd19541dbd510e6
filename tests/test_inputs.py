"""Local data and models of a run file reach the store once, and faults are found before anything starts."""

from pathlib import Path
from typing import Any

import pytest

from limbeck.errors import ConfigError, DataError
from limbeck.inputs import check_inputs, stage_inputs
from limbeck.run_file import RunFile
from limbeck.storage import Store


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a data set and a model, where the command is run."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama"}')
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "tokenizer.json").write_text("{}")
    (model / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "1 + 1"}\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_file(work_uri: str = "s3://test/work", **data: Any) -> RunFile:
    inputs = {"prompts": "prompts.jsonl", "teacher": "s3://models/teacher", "student": "model"}
    return RunFile.model_validate({"work_uri": work_uri, "config": {"seed": 7}} | inputs | data)


def test_local_inputs_are_uploaded_and_stored_ones_stay(here: Path, store: Store, work_uri: str) -> None:
    staged = stage_inputs(run_file(work_uri, heldout="s3://data/heldout.parquet"), store)

    assert staged.teacher == "s3://models/teacher"
    assert staged.heldout == "s3://data/heldout.parquet"
    assert staged.prompts.startswith(f"{work_uri}/inputs/")
    assert store.read_bytes(staged.prompts) == (here / "prompts.jsonl").read_bytes()
    assert staged.student.endswith("/model")  # so is it called in a report
    names = {uri.removeprefix(f"{staged.student}/") for uri in store.sizes(staged.student)}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"}


def test_addresses_follow_the_content(here: Path, store: Store, work_uri: str) -> None:
    first = stage_inputs(run_file(work_uri), store)
    assert stage_inputs(run_file(work_uri), store) == first

    (here / "prompts.jsonl").write_text('{"prompt": "2 + 2"}\n')
    second = stage_inputs(run_file(work_uri), store)
    assert second.prompts != first.prompts
    assert second.student == first.student
    assert store.read_bytes(first.prompts) == b'{"prompt": "1 + 1"}\n'


def test_a_folder_of_data_is_uploaded_without_what_is_no_data(
    here: Path, store: Store, work_uri: str
) -> None:
    for name in ("rows/a.csv", "rows/more/b.JSONL", "rows/notes.txt", "rows/.env.json"):
        (here / name).parent.mkdir(exist_ok=True, parents=True)
        (here / name).write_text(name)
    staged = stage_inputs(run_file(work_uri, prompts="rows", heldout="hf://org/set?split=test"), store)
    assert staged.prompts.endswith("/rows")
    names = {uri.removeprefix(f"{staged.prompts}/") for uri in store.sizes(staged.prompts)}
    assert names == {"a.csv", "more/b.JSONL"}
    assert staged.heldout == "hf://org/set?split=test"
    (here / "rows" / "notes.txt").write_text("other words")
    assert stage_inputs(run_file(work_uri, prompts="rows"), store).prompts == staged.prompts


def test_the_bucket_is_made(here: Path, store: Store) -> None:
    staged = stage_inputs(run_file("s3://fresh-bucket/work"), store)
    assert store.exists(staged.prompts)


def test_everything_else_of_a_run_file_stays(here: Path, store: Store, work_uri: str) -> None:
    wanted = run_file(work_uri)
    staged = stage_inputs(wanted, store)
    keys = {"prompts", "student"}
    assert staged.model_dump(exclude=keys) == wanted.model_dump(exclude=keys)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"prompts": "none.jsonl"}, r"no such file in `prompts`.*got none\.jsonl"),
        ({"prompts": "model/tokenizer.txt"}, "no such file"),
        ({"prompts": "texts"}, r"unknown kind of file in `prompts`.*a folder of others: texts"),
        ({"heldout": "prompts.txt"}, r"unknown kind of file in `heldout`.*\.jsonl.*prompts\.txt"),
        ({"prompts": "hf://openai/gsm8k"}, r"not the address of a data set on a hub.*openai/gsm8k"),
    ],
)
def test_a_wrong_data_file_is_a_config_error(here: Path, data: dict[str, str], message: str) -> None:
    (here / "prompts.txt").write_text("prompt\n")
    (here / "texts").mkdir()
    (here / "texts" / "a.txt").write_text("prompt\n")
    with pytest.raises(ConfigError, match=message):
        check_inputs(run_file(**data))


def test_a_missing_model_folder_is_a_config_error(here: Path) -> None:
    (here / "model").rename(here / "elsewhere")
    with pytest.raises(ConfigError, match=r"no such folder in `student`"):
        check_inputs(run_file())


def test_a_model_that_cannot_be_used_is_found_before_the_upload(
    here: Path, store: Store, work_uri: str
) -> None:
    (here / "model" / "chat_template.jinja").unlink()
    with pytest.raises(DataError, match="without a chat template"):
        stage_inputs(run_file(work_uri), store)
    assert not store.sizes(work_uri)
