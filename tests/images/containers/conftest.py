"""The images, built once, and a pod to run them in. `make test-images` runs these; `make test` does not."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from limbeck.storage import Store
from tests.images import machine, network
from tests.images.launcher import Pod

SOURCE = "https://example.com/limbeck"


@pytest.fixture(scope="session")
def built() -> Path:
    """Build both images on a local base; gives the folder of ids and SBOMs."""
    os.environ.update(machine.podman_environment())
    command = [sys.executable, "-m", "images.build", "--base", machine.base_image(), "--source", SOURCE]
    subprocess.run([*command, "tools", "engines-cpu"], check=True)
    return Path("build/images")


@pytest.fixture(scope="session")
def tools(built: Path) -> str:
    """The id of the `tools` image."""
    return (built / "tools.id").read_text().strip()


@pytest.fixture(scope="session")
def engines(built: Path) -> str:
    """The id of the image that is `generate` and `train` on CPUs."""
    return (built / "engines-cpu.id").read_text().strip()


@pytest.fixture(scope="session")
def pod(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """A place to run containers that reach the object store and nothing else."""
    port = urlsplit(str(store.endpoint)).port
    assert port
    with network.only(port) as namespace:
        yield Pod(namespace, tmp_path_factory.mktemp("pod") / "s3")
