"""The files of an export: weights that are whole, tokenizer, how to generate, the card, checksums."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.checkpoints import base_uri
from limbeck.config import EvaluateConfig
from limbeck.errors import DataError
from limbeck.export.card import model_card
from limbeck.export.chosen import Chosen
from limbeck.export.origins import Asked, student, teacher
from limbeck.models import INDEX, TEMPLATES, TOKENIZERS, WEIGHTS, check_folder
from limbeck.preflight.places import Place
from limbeck.preflight.weights import read_tensors
from limbeck.storage import Store, StoredObject, sha256

CONFIG, GENERATION, TOKENIZER = "config.json", "generation_config.json", "tokenizer_config.json"
CHECKSUMS = "checksums.sha256"
CARD = "README.md"
KEPT = {
    *(CONFIG, GENERATION, INDEX, TOKENIZER, *TOKENIZERS, *TEMPLATES),
    *("merges.txt", "special_tokens_map.json", "added_tokens.json"),
}
"""Beside the weights; what else a trainer leaves, such as its history, stays behind."""
ADAPTER = re.compile(r"adapter_(config\.json|model\..+)")
ADAPTED = ("lora_", ".base_layer.", ".modules_to_save.", ".original_module.")
"""In the names of weights that wait for their adapters to be merged."""
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def write(store: Store, chosen: Chosen, asked: Asked, folder: Path) -> None:
    """Write a whole export into an empty folder; the same checkpoint and report give the same bytes.

    Args:
        store: Where the checkpoint lies.
        chosen: What goes out.
        asked: What a person says of the run.
        folder: Where to.

    Raises:
        DataError: when the checkpoint is not whole, was not made by a stage, or waits for its adapters.
        StorageError: when a file is gone or another one than the manifest says.
    """
    from_student, from_teacher = student(store, chosen, asked.student), teacher(store, chosen, asked.teacher)
    fetch(store, chosen, folder)
    settings = chosen.report.settings.evaluate if chosen.report else None
    _write_json(folder / GENERATION, generation_config(folder, settings))
    if from_student.licence_text:
        (folder / "LICENSE").write_bytes(from_student.licence_text)
    card = model_card(chosen, asked, from_student, from_teacher)
    (folder / CARD).write_text(card, encoding="utf-8")
    lines = [f"{sha256(path)}  {path.name}\n" for path in sorted(folder.iterdir())]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def fetch(store: Store, chosen: Chosen, folder: Path) -> None:
    """Bring the checkpoint's files into a folder, and check that a model can be loaded from them.

    Raises:
        DataError: when it cannot.
        StorageError: when a file is gone or corrupt.
    """
    base = base_uri(chosen.checkpoint)
    files = {item.uri.removeprefix(f"{base}/"): item for item in chosen.checkpoint.objects}
    _check_names(files, base)
    wanted = [item for name, item in files.items() if name in KEPT or _is_weights(name)]
    store.read_folder(wanted, base, folder)
    check_folder(folder, base)
    index = _read_json(folder / INDEX)
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    tensors = read_tensors(Place("checkpoint", str(folder), None), sizes, index)
    names = set(tensors.shapes) if tensors else set()
    adapted = sorted(name for name in names if any(part in f".{name}." for part in ADAPTED))
    missing = sorted(set(index.get("weight_map", {})) - names)
    if adapted or missing:
        raise DataError(
            "weights that wait for their adapters" if adapted else "a checkpoint without all its weights",
            where=base,
            expected="plain weights" if adapted else missing[0],
            got=adapted[0] if adapted else None,
            remedy="Run the stage that made it again: it merges adapters and writes everything",
        )


def generation_config(folder: Path, settings: EvaluateConfig | None) -> dict[str, Any]:
    """How a loaded model generates: sampled as it was evaluated, ended by the tokens that ended it there.

    Args:
        folder: The checkpoint.
        settings: Of the evaluation; None where there was none: then the model decodes greedily.

    Raises:
        DataError: when nothing says which token ends an answer.
    """
    model, own = _read_json(folder / CONFIG), _read_json(folder / GENERATION)
    ids = {name: own.get(name, model.get(name)) for name in TOKEN_IDS}
    ends = [*_ids(own.get("eos_token_id")), *_ids(model.get("eos_token_id")), *_end_of_tokenizer(folder)]
    ends = list(dict.fromkeys(ends))
    if not ends:
        raise DataError(
            "a model that never ends its answer",
            where=str(folder / CONFIG),
            expected="eos_token_id there, or eos_token of the tokenizer",
            remedy="Set it in the checkpoint that the run begins with",
        )
    ids["eos_token_id"] = ends[0] if len(ends) == 1 else ends
    sampling: dict[str, Any] = {"do_sample": False}
    if settings is not None:
        sampling = {
            "do_sample": True,
            "temperature": settings.temperature,
            "top_p": 1.0,
            "top_k": 0,  # else transformers would take 50
            "max_new_tokens": settings.max_tokens,
        }
    return {name: value for name, value in ids.items() if value is not None} | sampling


def _check_names(files: Mapping[str, StoredObject], base: str) -> None:
    """Refuse what is no whole model, before anything is downloaded."""
    adapters = sorted(name for name in files if ADAPTER.fullmatch(name.rpartition("/")[2]))
    unknown = sorted(name for name, item in files.items() if not item.sha256)
    if adapters or unknown:
        raise DataError(
            "an adapter is no whole model" if adapters else "a checkpoint that nobody vouches for",
            where=base,
            expected="merged weights" if adapters else "files with their sha256, as trainings write them",
            got=(adapters or unknown)[0],
            remedy="Merge it, and bring it in as a checkpoint"
            if adapters
            else "Export what a stage of Limbeck has made",
        )


def _is_weights(name: str) -> bool:
    return name.endswith(WEIGHTS) and "/" not in name


def _end_of_tokenizer(folder: Path) -> list[int]:
    """The id of the tokenizer's end token: vLLM, which evaluated the model, stops there as well."""
    end = _read_json(folder / TOKENIZER).get("eos_token")
    text = end.get("content") if isinstance(end, dict) else end
    added = _read_json(folder / "tokenizer.json").get("added_tokens")
    tokens = added if isinstance(added, list) else []
    return [item["id"] for item in tokens if isinstance(item, dict) and item.get("content") == text][:1]


def _ids(value: object) -> list[int]:
    """One token id, or several."""
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, int) and not isinstance(item, bool)]


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty when there is none."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path.name}", expected="JSON", got=str(error)[:80]) from error
    return content if isinstance(content, dict) else {}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
