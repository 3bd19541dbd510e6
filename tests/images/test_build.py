"""The build refuses what would make another image under the same name."""

import subprocess
import sys
from pathlib import Path

import pytest

from images.build import DESCRIPTIONS


@pytest.mark.parametrize("base", ["", "debian", "debian:12", "debian@sha256:123", "@sha256:" + "0" * 64])
def test_a_base_that_is_not_named_by_digest_is_refused(base: str) -> None:
    command = [sys.executable, "-m", "images.build", "--base", base, "tools"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error 2: the base image must be named by digest")


def test_every_image_has_a_lock() -> None:
    assert {path.stem for path in Path("images").glob("*.lock")} == DESCRIPTIONS.keys() | {"build"}
