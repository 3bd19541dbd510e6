"""The contract between a component's shell, its compiled YAML, and the function that its body calls."""

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck import tasks
from limbeck.tasks.wiring import Requests

FOLDERS = sorted(path.parent for path in Path("components").glob("*/component.py"))


# What a component returns instead of writing it into an artifact.
RETURNED = {"preflight": set(Requests._fields), "shards": {"Output"}, "match": {"Output"}}


def interface(folder: Path) -> dict[str, dict[str, Any]]:
    """Inputs and outputs of a compiled component, by name."""
    spec = yaml.safe_load((folder / "component.yaml").read_text())
    component = spec["components"][f"comp-{folder.name}"]
    found: dict[str, dict[str, Any]] = {}
    for side in ("inputDefinitions", "outputDefinitions"):
        for kind in component.get(side, {}).values():
            found |= kind
    return found


def test_every_stage_has_a_component() -> None:
    names = {folder.name for folder in FOLDERS}
    stages = {path.stem for path in Path("src/limbeck/stages").glob("[a-z]*.py")}
    around = {"preflight", "shards", "pick", "export", "load", "cleanup"}
    assert names == stages | around | {"noise", "match", "compare"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_compiled_inputs_and_outputs_are_the_parameters_of_the_task(folder: Path) -> None:
    parameters = set(inspect.signature(getattr(tasks, folder.name)).parameters)
    assert set(interface(folder)) == parameters | RETURNED.get(folder.name, set())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_body_hands_each_input_and_output_over_under_its_own_name(folder: Path) -> None:
    module = ast.parse((folder / "component.py").read_text())
    function = next(node for node in module.body if isinstance(node, ast.FunctionDef))
    call = next(
        node
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("tasks.")
    )
    assert ast.unparse(call.func) == f"tasks.{folder.name}"
    handed = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    assert handed == {argument.arg: argument.arg for argument in function.args.args}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_inputs_and_outputs_are_described(folder: Path) -> None:
    undescribed = {
        name for name, definition in interface(folder).items() if not definition.get("description")
    }
    # Kubeflow describes artifacts and parameters that have a name; a plain return value has none.
    assert undescribed == RETURNED.get(folder.name, set()) & {"Output"}
