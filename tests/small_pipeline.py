"""A small compiled pipeline that is right, and ways to change one thing in it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

SMALL = Path(__file__).with_suffix(".yaml")
"""`preflight` on a CPU, then `train` with GPUs in a loop, as kfp 2.17.0 writes it."""
REQUIRED = {"work_uri": "s3://bucket/work", "config": {}}
SECRET = "hf_" + "x" * 34

Edit = Callable[[dict[str, Any], dict[str, Any]], object]


def edited(folder: Path, edit: Edit) -> Path:
    """The pipeline with its documents changed in place."""
    spec, platform = yaml.safe_load_all(SMALL.read_text())
    edit(spec, platform)
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump_all([spec, platform]))
    return path


def container(spec: dict[str, Any], name: str) -> Any:
    """The container of `preflight` or `train`."""
    return spec["deploymentSpec"]["executors"][f"exec-{name}"]["container"]


def settings(platform: dict[str, Any], name: str) -> Any:
    """The Kubernetes settings of `preflight` or `train`."""
    return platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].setdefault(f"exec-{name}", {})


def preflight(spec: dict[str, Any]) -> Any:
    """The first task."""
    return spec["root"]["dag"]["tasks"]["preflight"]


def parameters(spec: dict[str, Any]) -> Any:
    """The parameters of the pipeline."""
    return spec["root"]["inputDefinitions"]["parameters"]
