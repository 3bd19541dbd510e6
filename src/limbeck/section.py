"""What all settings share: how a section of them is declared, and how one is made of untrusted content."""

import difflib
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from limbeck.credentials import looks_like_one, named_like_one
from limbeck.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
NULL = "null"


class Section(BaseModel):
    """Base of all sections: immutable, no unknown keys; the line under a field is its help."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _nulls(cls, value: object) -> object:
        """A section without a line is null to YAML; it means the defaults. A setting's null may be a word."""
        if not isinstance(value, dict):
            return {} if value is None else value
        return {
            name: None if item == NULL and _says_none(cls, name) else item for name, item in value.items()
        }


def plain(section: Section) -> dict[str, Any]:
    """Settings as JSON for a pipeline's parameter, in which Kubeflow's SDK takes no null.

    A null that is the default is left out; another one becomes the word `null`, which `Section` reads.
    """
    values = section.model_dump(mode="json", exclude_none=True)
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            values[name] = plain(value)
        elif value is None and _says_none(type(section), name):
            values[name] = NULL
    return values


def _says_none(section: type[BaseModel], name: object) -> bool:
    """Whether null is a choice of this setting, and not its default."""
    field = section.model_fields.get(str(name))
    return field is not None and field.default is not None and type(None) in get_args(field.annotation)


def micro_batch(batch_size: int, wanted: int | None) -> int:
    """Rows of one forward pass: what is wanted, but the whole batch where that is smaller or None is wanted.

    Raises:
        ValueError: when the batch cannot be made of such passes.
    """
    rows = min(wanted or batch_size, batch_size)
    if batch_size % rows:
        raise ValueError(f"{batch_size} completions must be a multiple of micro_batch_size, {rows}")
    return rows


def parse(model: type[Model], content: object, where: str) -> Model:
    """Build a model from untrusted content, with one line for its first mistake.

    Raises:
        ConfigError: when it does not fit.
    """
    if not isinstance(content, dict):
        raise ConfigError("not a mapping of settings", where=where, got=type(content).__name__)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        rest = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
        if first["type"] == "extra_forbidden":
            raise ConfigError(
                f"unknown setting `{path}`", where=where, remedy=_suggestion(model, path) + rest
            ) from error
        if first["type"] == "missing":
            raise ConfigError(f"missing setting `{path}`", where=where, remedy=f"Add it{rest}") from error
        expected = first["msg"].removeprefix("Value error, ")
        raise ConfigError(
            f"bad setting `{path}`" if path else "bad settings",
            where=where,
            expected=expected,
            got=_shown(first["loc"], first["input"]) if path else None,
            remedy=f"Correct it{rest}",
        ) from error


def _shown(place: tuple[int | str, ...], value: object) -> str:
    """A wrong value for a message: a single one, and no credential."""
    if not isinstance(value, str | int | float | None):
        return f"a {type(value).__name__}"
    secret = looks_like_one(str(value)) or any(named_like_one(str(part)) for part in place)
    return "a credential" if secret else repr(value)[:80]


def _suggestion(model: type[BaseModel], path: str) -> str:
    """The nearest known key to an unknown one."""
    *parents, key = path.split(".")
    for name in parents:
        field = model.model_fields.get(name)
        inner = field and field.annotation
        if not isinstance(inner, type) or not issubclass(inner, BaseModel):
            return "Remove it"
        model = inner
    known = list(model.model_fields)
    near = difflib.get_close_matches(key, known, n=1)
    return f"Did you mean `{near[0]}`?" if near else f"Known here: {', '.join(known)}"
