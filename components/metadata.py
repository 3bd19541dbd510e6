"""What a `metadata.yaml` says: the schema of the public catalogue of Kubeflow components.

Source: `scripts/validate_metadata/validate_metadata.py` of kubeflow/pipelines-components, commit fab64a9f.
It knows one comparison a version, so an upper bound cannot be said there; docs/components.md has it.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

REQUIRED = ["name", "stability", "dependencies", "lastVerified"]
"""Must stand in this order; the others may stand anywhere."""

# semver.org's grammar with an optional operator before it.
Version = Annotated[
    str, Field(pattern=r"^(>=|<=|==)?(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?$")
]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Dependency(_Section):
    """Something a component needs."""

    name: str
    version: Version


class Dependencies(_Section):
    """What a component needs, by who makes it."""

    kubeflow: list[Dependency]
    external_services: list[Dependency] = []

    @model_validator(mode="after")
    def _needs_pipelines(self) -> Self:
        if "Pipelines" not in {item.name for item in self.kubeflow}:
            raise ValueError("kubeflow must name Pipelines")
        return self


class Ci(_Section):
    """Wishes to the catalogue's checks."""

    skip_dependency_probe: bool | None


class Metadata(_Section):
    """The content of a `metadata.yaml`."""

    name: str
    stability: Literal["experimental", "alpha", "beta", "stable"]
    dependencies: Dependencies
    tags: list[str] = []
    lastVerified: AwareDatetime
    """When the component was last run. The catalogue drops what is older than a year."""
    ci: Ci | None = None
    links: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def _keeps_the_order(cls, values: object) -> object:
        if isinstance(values, dict):
            found = [name for name in values if name in REQUIRED]
            if found != [name for name in REQUIRED if name in values]:
                raise ValueError(f"fields must stand in the order {', '.join(REQUIRED)}")
        return values


def load_metadata(path: Path) -> Metadata:
    """Read and check a `metadata.yaml`.

    Raises:
        pydantic.ValidationError: when the catalogue would refuse it.
    """
    return Metadata.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
