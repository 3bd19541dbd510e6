"""Pushes built images to a registry and pins their digests for the next compilation.

    python -m images.push --to registry.example.com/team [IMAGE...]

Log in with `podman login` before. Afterwards `images.yaml` names what was pushed by digest, and
`make compile` writes it into components and pipelines. `engines-cpu` is pinned for `generate` and `train`.
"""

import argparse
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import yaml

from images.images import FILE


def main() -> None:
    """Push and pin what the command line names."""
    parser = argparse.ArgumentParser(description="Push Limbeck's images and pin their digests.")
    parser.add_argument("--to", required=True, help="registry and path, such as registry.example.com/team")
    parser.add_argument("--file", type=Path, default=FILE, help="where digests are pinned")
    parser.add_argument("images", nargs="*", default=["tools", "generate", "train"], metavar="IMAGE")
    arguments = parser.parse_args()
    for image in arguments.images:
        repository = f"{arguments.to}/{image}"
        try:
            digest = push(image, repository)
        except subprocess.CalledProcessError as error:
            sys.exit(f"podman push failed with exit status {error.returncode}; its words are above")
        for name in ("generate", "train") if image == "engines-cpu" else (image,):
            pin(arguments.file, name, repository, digest)
        print(f"{repository}@{digest}")


def push(image: str, repository: str) -> str:
    """Push one image under the package's version; gives the digest of what the registry has."""
    tag = version("limbeck")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "digest")
        command = ["podman", "push", "--digestfile", str(file)]
        subprocess.run(
            [*command, f"localhost/limbeck/{image}:{tag}", f"docker://{repository}:{tag}"], check=True
        )
        return file.read_text(encoding="utf-8").strip()


def pin(file: Path, name: str, repository: str, digest: str | None) -> None:
    """Write one image's repository and digest into the file of references; its comments stay."""
    text = file.read_text(encoding="utf-8")
    comments = [line for line in text.splitlines(keepends=True) if line.startswith("#")]
    entries = yaml.safe_load(text) | {name: {"repository": repository, "digest": digest}}
    file.write_text("".join(comments) + yaml.safe_dump(entries, sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    main()
