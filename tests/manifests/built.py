"""What the overlays make, built once a session, and what is in it."""

from functools import cache
from pathlib import Path

import yaml

from manifests.kustomize import OVERLAYS, ROOT, Resource, resources

CLUSTER_SCOPED = {"Namespace", "PriorityClass", "ClusterQueue", "ResourceFlavor", "WorkloadPriorityClass"}
EXAMPLES = sorted(ROOT.glob("examples/*.yaml"))


@cache
def built(overlay: str) -> tuple[Resource, ...]:
    """The objects of an overlay; do not change them."""
    return tuple(resources(ROOT / overlay))


def everything() -> list[Resource]:
    """All objects of all overlays and examples."""
    return [resource for overlay in OVERLAYS for resource in built(overlay)] + [
        example(path) for path in EXAMPLES
    ]


def example(path: Path) -> Resource:
    """The one object of an example."""
    resource: Resource = yaml.load(path.read_text(), yaml.CSafeLoader)
    return resource


def of_kind(overlay: str, kind: str) -> dict[str, Resource]:
    """The objects of a kind in an overlay, by name."""
    return {resource["metadata"]["name"]: resource for resource in built(overlay) if resource["kind"] == kind}


def the_one(overlay: str, kind: str) -> Resource:
    """The only object of its kind in an overlay."""
    (resource,) = of_kind(overlay, kind).values()
    return resource
