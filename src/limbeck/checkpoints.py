"""Checkpoint folders between the store and the local disk, and the states of a training in progress.

{uri}/{hash}/config.json, model.safetensors, ...      a finished model, listed by its manifest
{uri}/state/{step}/{hash}/...                         what a killed trainer needs to go on
{uri}/state/LATEST                                    names the newest whole states, written last
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, Field, ValidationError

from limbeck.errors import DataError
from limbeck.manifest import Manifest, digest
from limbeck.progress import say
from limbeck.storage import ObjectError, Store, StoredObject

LATEST = "state/LATEST"


class SavedState(BaseModel):
    """The objects of one training state."""

    step: int = Field(ge=0)
    objects: tuple[StoredObject, ...] = Field(min_length=1)


class Pointer(SavedState):
    """What `LATEST` holds. Written by `save_state`; read by `load_state`, `status` and `gc`."""

    older: tuple[SavedState, ...] = ()
    """States of before that are kept too, the newest first."""


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
    sizes = store.sizes(path)
    if not sizes:
        raise DataError(
            "no checkpoint there",
            where=path,
            expected="a Hugging Face folder (config.json, *.safetensors, tokenizer)",
            got="no objects",
            remedy="Check the addresses of teacher and student",
        )
    # Without a question for each file: a sha256 that its writer left comes with the content.
    objects = [StoredObject(uri=uri, bytes=size, sha256="") for uri, size in sizes.items()]
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


def save_state(
    store: Store,
    uri: str,
    step: int,
    folder: Path,
    keep: int = 2,
    confirm: Callable[[], object] | None = None,
) -> None:
    """Upload a training state, flip `LATEST` to it, then remove all states but the newest.

    Args:
        store: Where to.
        uri: The stage's prefix.
        step: How many updates are done.
        folder: All that is needed to go on.
        keep: How many states stay.
        confirm: Raises when this attempt may not write any more; asked before the flip.
    """
    known = _pointer(store, uri)
    objects = store.write_folder(folder, f"{uri}/state/{step:08d}")
    before = (SavedState(step=known.step, objects=known.objects), *known.older) if known else ()
    older = tuple(state for state in before if state.objects != objects)[: keep - 1]
    if confirm:
        confirm()
    pointer = Pointer(step=step, objects=objects, older=older)
    store.write_bytes(f"{uri}/{LATEST}", pointer.model_dump_json().encode())
    # Also what a killed attempt has left half uploaded.
    kept = {f"{uri}/{LATEST}", *(item.uri for state in (pointer, *older) for item in state.objects)}
    store.delete(there for there in store.listing(f"{uri}/state") if there not in kept)


def load_state(store: Store, uri: str, folder: Path) -> TrainingState | None:
    """Download the newest training state of a stage that can be read, or None when none was saved.

    Raises:
        DataError: when what names them is damaged.
        StorageError: when none of them can be read.
    """
    pointer = _pointer(store, uri)
    if pointer is None:
        return None
    *newer, oldest = (pointer, *pointer.older)
    for state in newer:
        try:
            return _load(store, uri, state, folder)
        except ObjectError as error:
            say(f"the state of step {state.step} cannot be read, the one before it is tried: {error}")
            shutil.rmtree(folder, ignore_errors=True)
    return _load(store, uri, oldest, folder)


def _load(store: Store, uri: str, state: SavedState, folder: Path) -> TrainingState:
    """Download one state."""
    prefix = f"{uri}/state/{state.step:08d}/"
    base = prefix + state.objects[0].uri.removeprefix(prefix).split("/", 1)[0]
    return TrainingState(state.step, store.read_folder(state.objects, base, folder))


def _pointer(store: Store, uri: str) -> Pointer | None:
    """What names the training states of a stage, None before the first.

    Raises:
        DataError: when it is damaged.
    """
    where = f"{uri}/{LATEST}"
    if not store.exists(where):
        return None
    try:
        return Pointer.model_validate_json(store.read_bytes(where))
    except ValidationError as error:
        raise DataError(
            "a damaged pointer to a training state",
            where=where,
            expected="the JSON that a trainer writes",
            got=error.errors()[0]["msg"],
            remedy="Delete it; the training then starts anew",
        ) from error
