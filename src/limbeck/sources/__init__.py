"""Data sets where people have them: a file or a folder in the object store, or `hf://`, see `sources.hub`."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from limbeck.config import PrepareConfig
from limbeck.errors import DataError
from limbeck.manifest import digest
from limbeck.questions import Raw
from limbeck.records import DATA_SUFFIXES
from limbeck.sources import hub
from limbeck.sources.files import is_data, numbered_rows
from limbeck.storage import Store, StoredObject


class Source(NamedTuple):
    """A data set that is there."""

    address: str
    """What is read; of a hub's data set the commit, whatever revision was named."""
    content_hash: str
    """What stands for it in a stage's inputs."""
    objects: tuple[StoredObject, ...]
    """Its files in the object store; none of a hub's."""


class RawRow(NamedTuple):
    """One row as it lies there."""

    where: str
    """Its file and its number, from 1: what messages call it."""
    value: Raw


def locate(address: str, store: Store, settings: PrepareConfig) -> Source:
    """Look a data set up.

    Args:
        address: `s3://` of a file, or of a folder with files of any known kinds; or `hf://`.
        store: Where the first ones lie.
        settings: How a hub is reached.

    Raises:
        ConfigError: when it is no such address, or names a file of another kind.
        DataError: when there is none.
        StorageError: when store or hub cannot be reached.
    """
    if hub.is_hub(address):
        data = hub.pinned(hub.parse(address), settings)
        return Source(data.address, digest([data.address]), ())
    item = store.stored(address)
    if item is not None and is_data(address):
        return Source(address, file_hash(item), (item,))
    base = address.rstrip("/")
    objects = tuple(
        found for uri in store.sizes(base) if is_data(uri) and (found := store.stored(uri)) is not None
    )
    if not objects:
        raise DataError(
            "no such data set" if item is None else "a data set of an unknown kind",
            where=address,
            expected=f"a file or a folder of files {', '.join(DATA_SUFFIXES)}",
            remedy="Check the address",
        )
    return Source(address, folder_hash(objects, base), objects)


def file_hash(item: StoredObject) -> str:
    """What stands for a data set of one file; others' objects carry no sha256 and are known by address."""
    return digest([item.sha256 or item.uri, item.bytes])


def folder_hash(objects: Iterable[StoredObject], base: str) -> str:
    """What stands for a data set of several files: their names below the folder, and their contents."""
    content = [[item.uri.removeprefix(f"{base}/"), item.sha256 or item.uri, item.bytes] for item in objects]
    return digest(sorted(content))


def rows(source: Source, store: Store, settings: PrepareConfig, columns: Sequence[str]) -> Iterator[RawRow]:
    """All rows, one file after another in the order of their names.

    Args:
        source: The data set. Of the object store, one file at a time is on the local disk; of a hub, all.
        store: Where it lies, if not on a hub.
        settings: How a hub is reached.
        columns: What is read of files that have columns; the first must be there.

    Raises:
        DataError: when a file is not what its name says.
        StorageError: when store or hub cannot be reached.
    """
    if hub.is_hub(source.address):
        for file in hub.fetch(hub.parse(source.address), settings):
            yield from _rows_of(file.path, file.name, columns)
    for item in source.objects:
        with tempfile.TemporaryDirectory() as folder:
            yield from _rows_of(store.read_file(item, Path(folder) / "data"), item.uri, columns)


def _rows_of(path: Path, name: str, columns: Sequence[str]) -> Iterator[RawRow]:
    for number, value in numbered_rows(path, name, columns):
        yield RawRow(f"{name}, row {number}", value)
