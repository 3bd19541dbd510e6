"""Every run file of the repository loads."""

from pathlib import Path
from typing import get_args

import pytest

from limbeck.config import Preset
from limbeck.demo import task
from limbeck.presets import check_task
from limbeck.questions import preset_of
from limbeck.run_file import RunFile, load_run_file
from limbeck.sources import hub

RUN_FILES = sorted([*Path("examples").rglob("*.yaml"), *Path("src/limbeck/demo").glob("*.yaml")])


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda path: path.name)
def test_run_file_loads(path: Path) -> None:
    load_run_file(path)


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda path: path.name)
def test_the_data_sets_of_a_run_file_can_be_named_and_read_so(path: Path) -> None:
    run_file = load_run_file(path)
    for side in ("prompts", "heldout"):
        check_task(preset_of(side, run_file.config), run_file.config.task.kind)
        if hub.is_hub(address := getattr(run_file, side)):
            hub.parse(address)


def test_there_is_a_run_file_for_each_preset() -> None:
    prepared = [load_run_file(path).config.prepare for path in RUN_FILES]
    used = {preset for item in prepared for preset in (item.preset, item.heldout_preset)}
    assert used - {None} == set(get_args(Preset))


def test_there_are_run_files_for_the_demo_and_for_own_data() -> None:
    assert {"run.yaml", "own-data.yaml"} <= {path.name for path in RUN_FILES}


def test_the_demo_asks_for_the_words_of_its_task() -> None:
    config = load_run_file(Path("src/limbeck/demo/run.yaml")).config
    assert config.task.answer_pattern == task.ANSWER_PATTERN
    assert config.judge.template == task.JUDGE_TEMPLATE
    assert (config.judge.yes, config.judge.no) == (task.YES, task.NO)
    longest = {
        config.generate.teacher.max_tokens,
        config.generate.student.max_tokens,
        config.ppo.max_tokens,
        config.evaluate.max_tokens,
    }
    assert longest == {task.MAX_COMPLETION_TOKENS}


def test_leaving_out_what_is_null_changes_nothing() -> None:
    run_file = load_run_file(Path("examples/own-data.yaml"))
    assert None in run_file.config.engine.model_dump().values()
    again = RunFile.model_validate(run_file.model_dump(mode="json", exclude_none=True))
    assert again == run_file
