"""Strict schemas of Kubernetes and of the projects that our objects refer to: unknown keys are errors."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from manifests.kustomize import Resource

KUBERNETES = ("1.31", "1.32", "1.33", "1.34", "1.35", "1.36")
CRDS = Path(__file__).parent / "crds"
CUSTOM_GROUPS = ("kueue.x-k8s.io", "pipelines.kubeflow.org", "trainer.kubeflow.org")
METADATA = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "maxLength": 253, "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"},
        "namespace": {"type": "string"},
        "labels": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
        "ownerReferences": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["apiVersion", "kind", "name", "uid"],
                "properties": {key: {"type": "string"} for key in ("apiVersion", "kind", "name", "uid")},
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
}


def is_custom(resource: Resource) -> bool:
    return resource["apiVersion"].split("/")[0] in CUSTOM_GROUPS


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A structural schema that refuses what it does not name, unless it keeps unknown fields on purpose."""
    result = dict(schema)
    if "properties" in schema:
        result["properties"] = {key: strict(value) for key, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            result["additionalProperties"] = False
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            result[key] = strict(schema[key])
    return result


@cache
def custom_schemas() -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Strict schemas by apiVersion and kind; several where several releases are supported."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for path in sorted([*CRDS.glob("*.yaml"), *CRDS.glob("*.json")]):
        text = path.read_text()
        spec = (json.loads(text) if path.suffix == ".json" else yaml.load(text, yaml.CSafeLoader))["spec"]
        for version in spec["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = METADATA
            schema["required"] = ["apiVersion", "kind", "metadata", *schema.get("required", [])]
            key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
            found.setdefault(key, []).append(schema)
    return found


def check(resource: Resource) -> None:
    """Compare an object with its project's schemas, or with the oldest Kubernetes."""
    if is_custom(resource):
        for schema in custom_schemas()[resource["apiVersion"], resource["kind"]]:
            jsonschema.Draft202012Validator(schema).validate(resource)
    else:
        kubernetes_validate.validate(resource, KUBERNETES[0], strict=True)
