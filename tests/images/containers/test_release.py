"""A release: an image is pushed, its digest pinned, and what is pulled by that digest runs."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.images import references
from limbeck import processes
from tests.images.launcher import Pod
from tests.images.machine import podman

REGISTRY = """\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty registry on a loopback port, which podman may use without TLS."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    address = f"127.0.0.1:{port}"
    (tmp_path / "registry.yml").write_text(REGISTRY.format(folder=tmp_path / "registry", port=port))
    (tmp_path / "registries.conf").write_text(f'[[registry]]\nlocation = "{address}"\ninsecure = true\n')
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "registries.conf"))
    command = ["docker-registry", "serve", str(tmp_path / "registry.yml")]
    server = subprocess.Popen(command, text=True, start_new_session=True, env={"PATH": os.environ["PATH"]})
    try:
        deadline = time.monotonic() + 20
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < deadline, "the registry does not come up"
            time.sleep(0.05)
        yield address
    finally:
        processes.stop(server, 5.0)


def test_a_pushed_image_is_pinned_by_the_digest_under_which_it_is_pulled(
    pod: Pod, tools: str, registry: str, tmp_path: Path
) -> None:
    file = tmp_path / "images.yaml"
    shutil.copy("images/images.yaml", file)
    before = file.read_text()

    command = [sys.executable, "-m", "images.push", "--to", f"{registry}/team", "--file", str(file), "tools"]
    subprocess.run(command, check=True)

    pinned = references(file)
    assert pinned["tools"].startswith(f"{registry}/team/tools@sha256:")
    assert pinned["generate"] == references()["generate"]
    assert file.read_text().splitlines()[:4] == before.splitlines()[:4]  # what the file says of itself
    podman("pull", "--quiet", pinned["tools"])
    ended = pod.run(pinned["tools"], ["limbeck", "--help"])
    podman("rmi", pinned["tools"])
    assert ended.status == 0, ended.output
    assert "Usage" in ended.output
