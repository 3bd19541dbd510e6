"""What a component says of itself: metadata in the catalogue's schema, and a README that cannot drift."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import compiler
from pydantic import ValidationError

from components.metadata import Metadata, load_metadata
from components.render import ROOT, render_all

FOLDERS = sorted(path.parent for path in Path("components").glob("*/component.py"))
VALID = """
name: generate
stability: alpha
dependencies:
  kubeflow:
    - {name: Pipelines, version: ">=2.15.0"}
  external_services:
    - {name: vLLM, version: "==0.32.0"}
lastVerified: 2026-11-24T00:00:00Z
tags: [llm]
ci: {skip_dependency_probe: false}
links: {documentation: docs/components.md}
"""


def tables(readme: str) -> dict[str, list[list[str]]]:
    """The rows of a README's tables, without the head, by the heading above."""
    found = {}
    for section in re.split(r"^## ", readme, flags=re.MULTILINE)[1:]:
        heading, _, text = section.partition("\n")
        rows = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("|")]
        found[heading] = [[row[0].strip("`"), *row[1:]] for row in rows[2:]]
    return found


def definitions(folder: Path, side: str) -> dict[str, Any]:
    """Inputs or outputs of a compiled component, by name."""
    root = yaml.safe_load((folder / "component.yaml").read_text())["root"].get(side, {})
    return {**root.get("artifacts", {}), **root.get("parameters", {})}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_metadata_is_what_the_catalogue_takes(folder: Path) -> None:
    metadata = load_metadata(folder / "metadata.yaml")
    assert metadata.name == folder.name
    assert metadata.tags
    for name, target in metadata.links.items():
        assert target.startswith("https://") or (folder / target).is_file(), name


def test_the_sample_of_the_schema_is_valid() -> None:
    assert Metadata.model_validate(yaml.safe_load(VALID)).dependencies.kubeflow[0].name == "Pipelines"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: generate\n", "", "Field required"),
        ("stability: alpha", "stability: fine", "'experimental', 'alpha', 'beta' or 'stable'"),
        ("name: Pipelines", "name: Trainer", "kubeflow must name Pipelines"),
        (">=2.15.0", ">=2.15.0,<2.18.0", "String should match pattern"),
        (">=2.15.0", ">=2.15", "String should match pattern"),
        ('version: "==0.32.0"', "since: 2024", "Extra inputs are not permitted"),
        ("2026-11-24T00:00:00Z", "2026-11-24", "lastVerified"),
        ("2026-11-24T00:00:00Z", "2026-11-24T00:00:00", "should have timezone info"),
        ("tags: [llm]", "tags: [1]", "Input should be a valid string"),
        ("tags: [llm]", "labels: [llm]", "Extra inputs are not permitted"),
        ("skip_dependency_probe: false", "skip_dependency_probe: maybe", "valid boolean"),
        ("stability: alpha\n", "lastVerified: 2026-11-24T00:00:00Z\nstability: alpha\n", "in the order"),
    ],
)
def test_what_the_catalogue_would_refuse_is_refused(old: str, new: str, said: str) -> None:
    assert old in VALID
    with pytest.raises(ValidationError, match=said):
        Metadata.model_validate(yaml.safe_load(VALID.replace(old, new)))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_engines_are_named_in_the_versions_that_the_images_get(folder: Path) -> None:
    extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    pins = dict(item.split("==") for item in extras["generate"] + extras["train"] if "==" in item)
    services = load_metadata(folder / "metadata.yaml").dependencies.external_services
    named = {item.name.lower(): item.version for item in services if item.version.startswith("==")}
    assert named == {name: f"=={pins[name]}" for name in named}


def test_readmes_are_those_of_the_sources_byte_for_byte(tmp_path: Path) -> None:
    written = render_all(tmp_path)
    assert {path.parent.name for path in written} == {folder.name for folder in FOLDERS} | {"components"}
    for path in written:
        assert path.read_bytes() == (ROOT / path.relative_to(tmp_path)).read_bytes(), path


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_readme_shows_every_input_and_output_of_the_compiled_component(folder: Path) -> None:
    shown = tables((folder / "README.md").read_text())
    for heading, side in (("Inputs", "inputDefinitions"), ("Outputs", "outputDefinitions")):
        compiled = definitions(folder, side)
        assert {row[0] for row in shown[heading]} == set(compiled)
        for name, *_, description in shown[heading]:
            text = " ".join(compiled[name].get("description", "").split())
            assert description.startswith(text), name
            assert description, name
    required = {row[0] for row in shown["Inputs"] if row[2] == "required"}
    compiled = definitions(folder, "inputDefinitions")
    assert required == {name for name, item in compiled.items() if not item.get("isOptional")}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_python_of_a_readme_works(folder: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    by_file: dict[str, Any] = {}
    from_python: dict[str, Any] = {}
    exec(blocks[0], by_file)  # noqa: S102 - our own text
    assert by_file[folder.name].name == folder.name
    exec(blocks[1], from_python)  # noqa: S102
    compiler.Compiler().compile(from_python["example"], str(tmp_path / "example.yaml"))
    spec = yaml.safe_load((tmp_path / "example.yaml").read_text())
    assert f"comp-{folder.name}" in spec["components"]


def test_the_index_names_every_component() -> None:
    listed = re.findall(r"^\| \[`(\w+)`\]", Path("components/README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == [folder.name for folder in FOLDERS]
