"""What tests with containers need of a machine: programs from Debian, podman's settings, a base image.

python -m tests.images.machine        installs the programs that are missing (as root, on Debian)
"""

import os
import shutil
import subprocess
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "build" / "images" / "podman"
# Program and the package that has it.
PROGRAMS = {
    "podman": "podman",
    "runc": "runc",
    "mmdebstrap": "mmdebstrap",
    "socat": "socat",
    "ip": "iproute2",
    "docker-registry": "docker-registry",
}
BASE = "localhost/limbeck-base:bookworm"
# Works as root without systemd, and where limits cannot be raised.
CONTAINERS_CONF = """\
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
"""
# A storage of our own: nothing that the machine has takes part, and it goes with the build folder.
STORAGE_CONF = f"""\
[storage]
driver = "overlay"
graphroot = "{FOLDER}/storage"
runroot = "{FOLDER}/run"
"""


def install_programs() -> None:
    """Install what is missing with apt-get."""
    missing = sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})
    if not missing:
        return
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["install", "-qq", "--yes", "--no-install-recommends", *missing]
    for arguments in (["update", "-qq"], install):
        command = ["apt-get", *arguments]
        subprocess.run(command, env=environment, check=True)


def podman_environment() -> dict[str, str]:
    """Write podman's settings; gives the variables that make it use them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "containers.conf").write_text(CONTAINERS_CONF, encoding="utf-8")
    (FOLDER / "storage.conf").write_text(STORAGE_CONF, encoding="utf-8")
    return {
        "CONTAINERS_CONF": str(FOLDER / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(FOLDER / "storage.conf"),
    }


def base_image() -> str:
    """A minimal Debian with Python, made once; gives its reference by digest."""
    if not podman("images", "--quiet", BASE):
        tar = FOLDER / "base.tar"
        options = ["--quiet", "--variant=minbase", "--include=python3,ca-certificates,libnuma1"]
        command = ["mmdebstrap", *options, "bookworm", str(tar)]
        subprocess.run(command, check=True)
        podman("import", str(tar), BASE)
        tar.unlink()
    return podman("image", "inspect", "--format", "{{index .RepoDigests 0}}", BASE)


def podman(*arguments: str) -> str:
    """What podman prints; its complaints go to the screen."""
    command = ["podman", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


if __name__ == "__main__":
    install_programs()
