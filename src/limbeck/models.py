"""What a checkpoint folder must hold before any stage loads it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from limbeck.errors import DataError

WEIGHTS = ".safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
TEMPLATES = ("chat_template.jinja", "chat_template.json")


def check_folder(folder: Path, where: str) -> Path:
    """Check that a folder is a Hugging Face checkpoint that loads without running its code, and can chat.

    Args:
        folder: The local folder.
        where: What messages call it: the path or URI that the user gave.

    Returns:
        The folder.

    Raises:
        DataError: the first of `faults`.
    """
    for fault in faults(folder, where):
        raise fault
    return folder


def faults(folder: Path, where: str) -> Iterator[DataError]:
    """All that keeps a folder from being a checkpoint that can be used; each says how to mend it."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    try:
        config = _read_json(folder / "config.json", where) if "config.json" in names else {}
        index = _read_json(folder / INDEX, where, missing={})
        tokenizer = _read_json(folder / "tokenizer_config.json", where, missing={})
    except DataError as error:
        yield error
        return
    if "model_type" not in config:
        yield DataError(
            "not a Hugging Face checkpoint",
            where=where,
            expected="a folder with a config.json that names a model_type",
            got=", ".join(sorted(names)[:6]) or "an empty or missing folder",
            remedy="Give the folder that save_pretrained() wrote",
        )
        return  # of something else, all the rest is missing too
    yield from _weight_faults(index, names, where)
    if not names.intersection(TOKENIZERS):
        yield DataError(
            "a checkpoint without a tokenizer",
            where=where,
            expected=" or ".join(TOKENIZERS),
            remedy="Write it there with tokenizer.save_pretrained()",
        )
    if not names.intersection(TEMPLATES) and not tokenizer.get("chat_template"):
        yield DataError(
            "a tokenizer without a chat template",
            where=where,
            expected="chat_template.jinja, or `chat_template` in tokenizer_config.json",
            remedy="Take the instruction-tuned model, or set tokenizer.chat_template and save it",
        )


def _weight_faults(index: dict[str, Any], names: set[str], where: str) -> Iterator[DataError]:
    """Weights are there, all of them, and in a format that runs no code."""
    found = {name for name in names if name.endswith(WEIGHTS)}
    pickled = sorted(name for name in names if name.endswith(PICKLED))
    if not found and pickled:
        yield DataError(
            "weights in a pickle file, which can run any code when loaded",
            where=f"{where}/{pickled[0]}",
            expected="*.safetensors",
            remedy="Load it where you trust it, and write it with model.save_pretrained()",
        )
        return
    files = index.get("weight_map", {})
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        yield DataError(
            "an index that does not say which file a weight is in",
            where=f"{where}/{INDEX}",
            expected="`weight_map` with a file's name for each weight",
            remedy="Copy it again",
        )
        return
    wanted = set(files.values()) or {f"*{WEIGHTS}"}
    if not found or (index and not wanted <= found):
        yield DataError(
            "a checkpoint without all its weights",
            where=where,
            expected=", ".join(sorted(wanted - found)[:3]),
            got=", ".join(sorted(found)[:3]) or "none",
            remedy="Copy the whole folder",
        )


def _read_json(path: Path, where: str, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    """The object in a JSON file, or `missing` when the file is not there.

    Raises:
        DataError: when it is no JSON object.
    """
    if missing is not None and not path.exists():
        return missing
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path.name}", where=where, expected="JSON", got=str(error)) from error
    if not isinstance(content, dict):
        raise DataError(
            f"cannot read {path.name}", where=where, expected="a JSON object", got=type(content).__name__
        )
    return content
