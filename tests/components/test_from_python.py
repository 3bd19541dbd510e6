"""`from limbeck.components import generate`."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import limbeck.components
from limbeck.components import generate

NAMES = sorted(path.parent.name for path in Path("components").glob("*/component.py"))


def python(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_there_is_a_name_for_every_component() -> None:
    assert sorted(limbeck.components.__all__) == NAMES
    assert sorted(dir(limbeck.components)) == NAMES
    assert sorted(limbeck.components.__annotations__) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_name_gives_the_committed_component(name: str) -> None:
    loaded = getattr(limbeck.components, name)
    committed = yaml.safe_load(Path(f"components/{name}/component.yaml").read_text())
    assert loaded.name == name
    assert set(loaded.component_spec.inputs or ()) == {
        key for kind in committed["root"]["inputDefinitions"].values() for key in kind
    }


def test_a_component_is_loaded_once() -> None:
    assert limbeck.components.generate is generate


def test_what_is_not_a_component_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'generat'"):
        getattr(limbeck.components, "generat")  # noqa: B009 - mypy knows that it is missing
    assert not hasattr(limbeck.components, "nothing")


def test_kubeflow_is_imported_when_a_component_is_asked_for_and_not_before() -> None:
    done = python(
        "import sys, limbeck.components; before = 'kfp' in sys.modules;"
        "from limbeck.components import pick; print(before, 'kfp' in sys.modules, pick.name)"
    )
    assert done.stdout.split() == ["False", "True", "pick"]


def test_without_kubeflow_the_error_names_what_to_install() -> None:
    done = python(
        "import sys; sys.modules['kfp'] = None\n"
        "from limbeck.errors import ConfigError\n"
        "try: from limbeck.components import sft\n"
        "except ConfigError as error: print(error)"
    )
    assert "limbeck.components.sft" in done.stdout
    assert "pip install 'limbeck[pipelines]'" in done.stdout
