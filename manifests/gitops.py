"""Writes every compiled pipeline as Kubernetes objects, for GitOps tools: `python -m manifests.gitops`.

Kubeflow Pipelines reads them when it keeps its pipelines in Kubernetes (`--pipelinesStoreKubernetes`). It
takes no change of a PipelineVersion's spec, so a version is named by what it holds.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import yaml

from limbeck.compiled import load
from manifests.kustomize import Resource

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "manifests" / "overlays" / "gitops"
API_VERSION = "pipelines.kubeflow.org/v2beta1"
HEADER = "# Generated from pipelines/{name}/pipeline.yaml by `python -m manifests.gitops`.\n"


def objects(compiled_path: Path) -> tuple[Resource, Resource]:
    """The Pipeline and the PipelineVersion of a compiled pipeline.

    Raises:
        ConfigError: when the file is no compiled pipeline.
    """
    compiled = load(compiled_path)
    info = compiled.spec["pipelineInfo"]
    content = json.dumps([compiled.spec, compiled.platform], sort_keys=True).encode()
    version_name = f"{info['name']}-{hashlib.sha256(content).hexdigest()[:10]}"
    description = " ".join(info.get("description", "").split())
    pipeline = {
        "apiVersion": API_VERSION,
        "kind": "Pipeline",
        "metadata": {"name": info["name"]},
        "spec": {"displayName": info["name"], "description": description},
    }
    version = {
        "apiVersion": API_VERSION,
        "kind": "PipelineVersion",
        "metadata": {"name": version_name},
        "spec": {
            "displayName": version_name,
            "pipelineName": info["name"],
            "pipelineSpec": compiled.spec,
            **({"platformSpec": compiled.platform} if compiled.platform else {}),
        },
    }
    return pipeline, version


def render() -> Iterator[tuple[Path, str]]:
    """Every file of the overlay that is generated, with its text."""
    for compiled_path in sorted(ROOT.glob("pipelines/*/pipeline.yaml")):
        name = compiled_path.parent.name
        text = yaml.dump_all(objects(compiled_path), Dumper=yaml.CSafeDumper, sort_keys=False, width=110)
        yield FOLDER / f"{name.replace('_', '-')}.yaml", HEADER.format(name=name) + text


if __name__ == "__main__":
    for path, text in render():
        path.write_text(text)
        print(path.relative_to(ROOT))
