"""What a checkpoint folder must hold; each fault ends in a line that says how to mend it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from limbeck.errors import DataError
from limbeck.models import check_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with all that a checkpoint needs; its weights are never read here."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "llama"}')
    (path / "model.safetensors").write_bytes(b"weights")
    (path / "tokenizer.json").write_text("{}")
    (path / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    return path


def with_index(folder: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "not a Hugging Face checkpoint"),
    "config of something else": (
        lambda f: (f / "config.json").write_text("{}"),
        "config.json that names a model_type",
    ),
    "broken config": (lambda f: (f / "config.json").write_text("{"), "cannot read config.json"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "expected a JSON object, got list"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "without all its weights"),
    "a shard is missing": (with_index, r"expected model-2\.safetensors, got model-1\.safetensors"),
    "an index that is none": (
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": ["model.safetensors"]}'),
        "an index that does not say which file a weight is in",
    ),
    "pickled weights": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        r"pytorch_model\.bin.*save_pretrained",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "without a tokenizer"),
    "no chat template": (
        lambda f: (f / "tokenizer_config.json").write_text("{}"),
        "tokenizer without a chat template",
    ),
    "no tokenizer settings": (lambda f: (f / "tokenizer_config.json").unlink(), "without a chat template"),
}


@pytest.mark.parametrize(("spoil", "message"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named_with_the_place_that_the_user_gave(
    folder: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(folder)
    with pytest.raises(DataError, match=message) as caught:
        check_folder(folder, "s3://bucket/model")
    assert "s3://bucket/model" in str(caught.value)


def test_a_whole_folder_passes(folder: Path) -> None:
    assert check_folder(folder, "here") == folder


def test_a_template_in_a_file_of_its_own_passes(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    check_folder(folder, "here")


def test_a_missing_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got an empty or missing folder"):
        check_folder(tmp_path / "none", "there")


def test_pickles_beside_safe_weights_do_no_harm(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"")
    check_folder(folder, "here")
