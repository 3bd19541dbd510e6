"""The image references of components, as `images.yaml` beside this file has them."""

import re
from importlib.metadata import version
from pathlib import Path

import yaml

from limbeck.errors import ConfigError

FILE = Path(__file__).with_name("images.yaml")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def references(file: Path = FILE) -> dict[str, str]:
    """Image references by the image's name: by digest where one is pinned, else by the package's version.

    Raises:
        ConfigError: when a digest is none.
    """
    entries: dict[str, dict[str, str | None]] = yaml.safe_load(file.read_text(encoding="utf-8"))
    found = {}
    for name, entry in entries.items():
        digest = entry["digest"]
        if digest is not None and not DIGEST.fullmatch(digest):
            raise ConfigError(
                f"image `{name}` is pinned to something that is no digest",
                where=str(file),
                expected="sha256: and 64 hex digits, or null",
                got=digest,
                remedy="Take it from the registry, or push again with `python -m images.push`",
            )
        found[name] = f"{entry['repository']}@{digest}" if digest else f"{entry['repository']}:{TAG}"
    return found


TAG = version("limbeck")
_REFERENCES = references()
TOOLS = _REFERENCES["tools"]  # CPU stages: no engine inside
GENERATE = _REFERENCES["generate"]  # vLLM
TRAIN = _REFERENCES["train"]  # DeepSpeed and TRL, and vLLM for the rollouts of ppo
