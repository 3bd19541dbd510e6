"""The pipelines as Kubernetes objects: what was compiled, named by what it holds, small enough to store."""

import json
import re
from pathlib import Path

import pytest
import yaml

from limbeck.compiled import Compiled, dump, load
from limbeck.errors import ConfigError
from limbeck.stamp import stamp
from manifests.gitops import FOLDER, objects, render
from tests.manifests.built import of_kind

PIPELINES = sorted(Path("pipelines").glob("*/pipeline.yaml"))
OBJECT_BYTES = 1_500_000  # etcd's 1.5 MiB with what the API server adds
NAME = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"


def test_the_committed_files_are_what_the_compiled_pipelines_give() -> None:
    for path, text in render():
        assert path.read_text() == text, f"{path}: run `python -m manifests.gitops`"


def test_the_overlay_lists_every_generated_file_and_no_other() -> None:
    listed = yaml.load((FOLDER / "kustomization.yaml").read_text(), yaml.CSafeLoader)["resources"]
    generated = sorted(path.name for path, _ in render())
    assert sorted(listed) == generated
    assert sorted(path.name for path in FOLDER.glob("*.yaml")) == sorted([*generated, "kustomization.yaml"])


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.parent.name)
def test_a_version_carries_exactly_what_was_compiled(path: Path) -> None:
    compiled = load(path)
    name = compiled.spec["pipelineInfo"]["name"]
    assert name in of_kind("overlays/gitops", "Pipeline")
    (version,) = (
        version
        for version in of_kind("overlays/gitops", "PipelineVersion").values()
        if version["spec"]["pipelineName"] == name
    )
    assert version["spec"]["pipelineSpec"] == compiled.spec
    assert version["spec"]["platformSpec"] == compiled.platform


def test_names_are_labels_and_objects_are_small_enough() -> None:
    for kind in ("Pipeline", "PipelineVersion"):
        for name, resource in of_kind("overlays/gitops", kind).items():
            assert re.fullmatch(NAME, name)
            assert len(name) <= 63
            assert len(json.dumps(resource).encode()) < OBJECT_BYTES


def test_another_pipeline_is_another_version_of_the_same_pipeline(tmp_path: Path) -> None:
    before = objects(PIPELINES[0])
    changed: Compiled = stamp(load(PIPELINES[0]), queue="night")
    (tmp_path / "pipeline.yaml").write_text(dump(changed))
    after = objects(tmp_path / "pipeline.yaml")
    assert after[0] == before[0]
    assert after[1]["metadata"]["name"] != before[1]["metadata"]["name"]
    assert objects(PIPELINES[0]) == before


def test_what_is_no_pipeline_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text("kind: Pod\n")
    with pytest.raises(ConfigError, match="not a compiled pipeline"):
        objects(tmp_path / "pipeline.yaml")
