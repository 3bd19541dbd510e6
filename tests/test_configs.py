"""Every run file of the repository loads."""

from pathlib import Path

import pytest

from limbeck.demo import task
from limbeck.run_file import RunFile, load_run_file

RUN_FILES = sorted([*Path("examples").rglob("*.yaml"), *Path("src/limbeck/demo").glob("*.yaml")])


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda path: path.name)
def test_run_file_loads(path: Path) -> None:
    load_run_file(path)


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
