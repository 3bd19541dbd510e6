"""Builds images with podman, and beside each its SBOM.

    python -m images.build --base REPOSITORY@sha256:DIGEST [--source URL] IMAGE...

IMAGE is `tools`, `generate`, `train`, or `engines-cpu`, which is the latter two for nodes without GPUs. The
result is `localhost/limbeck/IMAGE:VERSION` in podman's storage, and IMAGE.id and IMAGE.cdx.json in
build/images. Run it with CPython 3.11, that of the locks; wheels are downloaded once, checked by hash.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from limbeck.errors import ConfigError, LimbeckError

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent
OUT = ROOT / "build" / "images"
CONTEXT = OUT / "context"
DESCRIPTIONS = {
    "tools": "CPU stages: no engine inside",
    "generate": "Sampling and judging with vLLM",
    "train": "Training with DeepSpeed and TRL, rollouts through vLLM",
    "engines-cpu": "vLLM, DeepSpeed and TRL for nodes without GPUs",
}
# One time for every file and image: equal content has an equal digest. Zip files know none before 1980.
EPOCH = "315532800"


def main() -> None:
    """Build what the command line names."""
    parser = argparse.ArgumentParser(description="Build Limbeck's images with podman.")
    parser.add_argument("--base", required=True, help="base image, by digest: REPOSITORY@sha256:...")
    parser.add_argument("--source", default="unknown", help="URL of the source code, for the image's label")
    parser.add_argument(
        "images", nargs="+", choices=DESCRIPTIONS, metavar="IMAGE", help=", ".join(DESCRIPTIONS)
    )
    arguments = parser.parse_args()
    try:
        check(arguments.base)
        project_wheel()
        wheels("build")
        for image in arguments.images:
            wheels(image)
            build(image, arguments.base, arguments.source)
    except LimbeckError as error:
        print(f"error {error.exit_code}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except subprocess.CalledProcessError as error:
        sys.exit(f"{Path(error.cmd[0]).name} failed with exit status {error.returncode}; its words are above")


def check(base: str) -> None:
    """Refuse a base that can change under its name, a missing podman, a Python that needs other wheels.

    Raises:
        ConfigError: saying what is wrong.
    """
    if not re.fullmatch(r"[^@\s]+@sha256:[0-9a-f]{64}", base):
        raise ConfigError(
            "the base image must be named by digest",
            where="--base",
            expected="REPOSITORY@sha256: and 64 hex digits",
            got=base,
            remedy="Look it up with `podman image inspect --format {{.RepoDigests}} IMAGE`",
        )
    if shutil.which("podman") is None:
        raise ConfigError("no podman on PATH", remedy="Install it: apt-get install podman")
    if sys.version_info[:2] != (3, 11):
        raise ConfigError(
            "images are built with the Python of their locks",
            expected="CPython 3.11",
            got=sys.version.split()[0],
            remedy="Make the environment with it: PYTHON=python3.11 make setup",
        )


def wheels(lock: str) -> None:
    """Download what a lock lists into the context, once; pip checks every file against its hashes."""
    text = (FOLDER / f"{lock}.lock").read_bytes()
    (CONTEXT / f"{lock}.lock").write_bytes(text)
    done = OUT / f"{lock}-{hashlib.sha256(text).hexdigest()[:16]}.downloaded"
    if not done.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        command += ["--dest", str(CONTEXT / "wheels"), "--requirement", str(CONTEXT / f"{lock}.lock")]
        subprocess.run(command, check=True)
        done.touch()
    if lock == "build":
        (pip,) = (CONTEXT / "wheels").glob("pip-[0-9]*.whl")
        shutil.copyfile(pip, CONTEXT / "pip.whl")  # a wheel is a zip file: it runs as it is


def project_wheel() -> None:
    """Build the project's wheel into the context, and a lock that names it by hash."""
    (CONTEXT / "wheels").mkdir(parents=True, exist_ok=True)
    for old in CONTEXT.glob("limbeck-*.whl"):
        old.unlink()
    with tempfile.TemporaryDirectory() as scratch:
        # A copy: setuptools writes into the folder that it builds, and takes up what it left there before.
        ignored = shutil.ignore_patterns("*.egg-info", "__pycache__")
        shutil.copytree(ROOT / "src", Path(scratch, "src"), ignore=ignored)
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, scratch)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
        environment = os.environ | {"SOURCE_DATE_EPOCH": EPOCH}
        subprocess.run([*command, "--wheel-dir", str(CONTEXT), scratch], env=environment, check=True)
    (wheel,) = CONTEXT.glob("limbeck-*.whl")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lock = f"limbeck=={version('limbeck')} --hash=sha256:{digest}\n"
    (CONTEXT / "limbeck.lock").write_text(lock, encoding="utf-8")


def build(image: str, base: str, source: str) -> None:
    """Build one image and its SBOM."""
    arguments = {
        "BASE": base,
        "LOCK": f"{image}.lock",
        "TITLE": f"Limbeck {image}",
        "DESCRIPTION": DESCRIPTIONS[image],
        "VERSION": version("limbeck"),
        "REVISION": revision(),
        "SOURCE": source,
    }
    podman = ["podman", "build", "--network", "none", "--timestamp", EPOCH]
    podman += ["--file", str(FOLDER / "Containerfile")]
    for name, value in arguments.items():
        podman += ["--build-arg", f"{name}={value}"]
    target = "cpu" if image.endswith("-cpu") else "image"
    result = ["--tag", f"limbeck/{image}:{version('limbeck')}", "--iidfile", str(OUT / f"{image}.id")]
    subprocess.run([*podman, "--target", target, *result, str(CONTEXT)], check=True)
    with tempfile.TemporaryDirectory() as scratch:
        output = ["--output", f"type=local,dest={scratch}"]
        subprocess.run([*podman, "--target", "sbom", *output, str(CONTEXT)], check=True)
        shutil.copy(Path(scratch, "sbom.cdx.json"), OUT / f"{image}.cdx.json")


def revision() -> str:
    """The commit that is built, marked when files differ from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
