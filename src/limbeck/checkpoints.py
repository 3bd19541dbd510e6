"""Checkpoint folders between the store and the local disk, and the states of a training in progress.

{uri}/{hash}/config.json, model.safetensors, ...      a finished model, listed by its manifest
{uri}/state/{step}/{hash}/...                         what a killed trainer needs to go on
{uri}/state/LATEST                                    names the newest whole state, written last
"""

import json
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from limbeck.errors import DataError
from limbeck.manifest import Manifest, digest
from limbeck.storage import Store, StoredObject

LATEST = "state/LATEST"
_OBJECTS = TypeAdapter(tuple[StoredObject, ...])


class TrainingState(NamedTuple):
    """A saved moment of a training."""

    step: int
    folder: Path


def identity(store: Store, path: str) -> str:
    """What stands for a base model in a stage's inputs: its address and the names and sizes there."""
    if "://" not in path:
        files = sorted(item for item in Path(path).rglob("*") if item.is_file())
        return digest([path, [[item.name, item.stat().st_size] for item in files]])
    return digest([path, store.sizes(path)])


def fetch_base(store: Store, path: str, folder: Path) -> Path:
    """A base model as a local folder: as it is when local, else downloaded.

    Raises:
        DataError: when nothing lies there.
    """
    if "://" not in path:
        return Path(path)
    uris = store.sizes(path)
    if not uris:
        raise DataError(
            "no checkpoint there",
            where=path,
            expected="a Hugging Face folder (config.json, *.safetensors, tokenizer)",
            got="no objects",
            remedy="Check the addresses of teacher and student",
        )
    objects = [item for uri in uris if (item := store.stored(uri)) is not None]
    return store.read_folder(objects, path, folder)


def fetch(store: Store, manifest: Manifest, folder: Path) -> Path:
    """A checkpoint that a stage made, as a local folder."""
    return store.read_folder(manifest.objects, base_uri(manifest), folder)


def wrap(store: Store, uri: str, kind: str, name: str) -> Manifest | None:
    """A manifest for a checkpoint folder that another tool made, or None when nothing lies there.

    Its objects carry no sha256 unless their writer left one, so their content is known by names and sizes.
    """
    base = uri.rstrip("/")
    objects = tuple(item for found in store.sizes(base) if (item := store.stored(found)) is not None)
    if not objects:
        return None
    return Manifest(
        stage="load",
        kind=kind,
        name=name,
        uri=base,
        objects=objects,
        inputs={"folder": identity(store, base)},
        config_hash="",
        code_version="",
    )


def base_uri(manifest: Manifest) -> str:
    """The prefix below which a checkpoint's files have their own names: `{uri}/{hash}`, or a whole folder."""
    if manifest.stage == "load":
        return manifest.uri
    if not manifest.objects:
        raise DataError(
            "a checkpoint without files",
            where=manifest.uri,
            expected="the files of a Hugging Face folder",
            remedy="Run the stage that made it again",
        )
    rest = manifest.objects[0].uri.removeprefix(manifest.uri + "/")
    return f"{manifest.uri}/{rest.split('/', 1)[0]}"


def save_state(store: Store, uri: str, step: int, folder: Path) -> None:
    """Upload a training state, then flip `LATEST` to it.

    Args:
        store: Where to.
        uri: The stage's prefix.
        step: How many updates are done.
        folder: All that is needed to go on.
    """
    objects = store.write_folder(folder, f"{uri}/state/{step:08d}")
    pointer = {"step": step, "objects": _OBJECTS.dump_python(objects)}
    store.write_bytes(f"{uri}/{LATEST}", json.dumps(pointer).encode())


def load_state(store: Store, uri: str, folder: Path) -> TrainingState | None:
    """Download the newest whole training state of a stage, or None when there is none.

    Raises:
        DataError: when what names it is damaged.
    """
    if not store.exists(f"{uri}/{LATEST}"):
        return None
    try:
        pointer = json.loads(store.read_bytes(f"{uri}/{LATEST}"))
        objects = _OBJECTS.validate_python(pointer["objects"])
        step = int(pointer["step"])
        prefix = f"{uri}/state/{step:08d}/"
        base = prefix + objects[0].uri.removeprefix(prefix).split("/", 1)[0]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(
            "a damaged pointer to a training state",
            where=f"{uri}/{LATEST}",
            expected="the JSON that a trainer writes",
            got=type(error).__name__,
            remedy="Delete it; the training then starts anew",
        ) from error
    return TrainingState(step, store.read_folder(objects, base, folder))
