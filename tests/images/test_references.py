"""One file of image references: tags until a release pins digests."""

from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from images.images import FILE, GENERATE, TOOLS, TRAIN, references
from images.push import pin
from limbeck.errors import ConfigError

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "images.yaml"
    path.write_text(Path("images/images.yaml").read_text())
    return path


def test_without_digests_the_tag_is_the_version_of_the_package(file: Path) -> None:
    for name in ("tools", "generate", "train"):
        pin(file, name, f"registry.example.com/{name}", None)
    assert references(file) == {
        name: f"registry.example.com/{name}:{version('limbeck')}" for name in ("tools", "generate", "train")
    }


def test_what_nobody_has_pushed_is_at_a_registry_that_cannot_exist() -> None:
    """A name without a registry would be pulled from a public one, where anybody may own it."""
    for name, entry in yaml.safe_load(FILE.read_text()).items():
        assert entry["digest"] or entry["repository"] == f"registry.invalid/limbeck/{name}"


def test_components_take_their_images_from_the_file() -> None:
    assert references() == {"tools": TOOLS, "generate": GENERATE, "train": TRAIN}


def test_a_pinned_image_is_named_by_digest_and_the_others_stay(file: Path) -> None:
    before = references(file)
    pin(file, "train", "registry.example.com/team/train", DIGEST)
    assert references(file) == before | {"train": f"registry.example.com/team/train@{DIGEST}"}
    assert file.read_text().startswith("# Every image reference of the project.")


@pytest.mark.parametrize("digest", ["latest", "sha256:123", DIGEST.upper(), f"{DIGEST}0"])
def test_what_is_no_digest_is_refused(file: Path, digest: str) -> None:
    pin(file, "tools", "registry.example.com/tools", digest)
    with pytest.raises(
        ConfigError, match=r"`tools` is pinned to something that is no digest.*sha256: and 64"
    ):
        references(file)
