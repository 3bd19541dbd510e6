"""Reads the file with a run's parameters; what they mean is for `run_file`, and for the compiled pipeline.

It needs a YAML parser alone, so that `limbeck lint` does too.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from limbeck.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """Reads booleans as YAML 1.2 does: `yes` and `no` are words, as `judge` asks for them."""


_BOOL = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile("^(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def read_parameters(path: Path, what: str = "run file") -> dict[str, Any]:
    """Read YAML or JSON with a pipeline's parameters under their own names: a run file, or `what` it is.

    Raises:
        ConfigError: when it cannot be read or is no mapping. Its content is not repeated: people put
            credentials in the wrong places.
    """
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    except FileNotFoundError as error:
        raise ConfigError(f"no such {what}", where=str(path), remedy="Check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the {what}", where=str(path), got=str(error)) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise ConfigError(f"the {what} is not YAML", where=where, got=problem) from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ConfigError(
            f"not a {what}", where=str(path), expected="a mapping of parameters", got=type(found).__name__
        )
    return found
