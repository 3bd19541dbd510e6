"""The paper's run on GSM8K, planned from the config.json files of its models."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from limbeck.compiled import Compiled, find, load
from limbeck.planning.asked import Given
from limbeck.planning.making import Wish, make_plan
from limbeck.planning.model import Plan, PlannedTask
from limbeck.planning.rates import Prices, load_rates
from limbeck.run_file import RunFile, load_run_file

PAPER = Path("examples/paper")
FOLDERS = {
    "teacher": str(PAPER / "models/Llama-3.1-8B-Instruct"),
    "student": str(PAPER / "models/Llama-3.2-1B-Instruct"),
}
GIVEN = Given(prompts=7473, heldout=1319, prompt_tokens=200, completion_tokens=150)


@cache
def compiled(pipeline: str) -> Compiled:
    """A pipeline; YAML of this length takes a second to read."""
    return load(find(pipeline))


def changed(**sections: object) -> RunFile:
    """The run file with other settings; a section is changed where it is named, a parameter replaced."""
    values = load_run_file(PAPER / "gsm8k-llama.yaml").model_dump(mode="json", exclude_none=True)
    for name, value in sections.items():
        if isinstance(value, dict) and name in values["config"]:
            values["config"][name] |= value
        else:
            values[name] = value
    return RunFile.model_validate(values)


@pytest.fixture
def planned() -> Callable[..., Plan]:
    """Make a plan of the paper's run, with some settings changed."""

    def make(
        pipeline: str = "distill",
        gpu: str = "H100",
        given: Given = GIVEN,
        prices: Prices | None = None,
        folders: dict[str, str] = FOLDERS,
        **sections: object,
    ) -> Plan:
        wish = Wish(load_rates(None), given, gpu, prices, folders)
        return make_plan(changed(**sections), compiled(pipeline), wish)

    return make


def of(plan: Plan, task: str) -> PlannedTask:
    """One task by its name."""
    return next(item for item in plan.tasks if item.task == task)
