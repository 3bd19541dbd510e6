"""Data sets where people have them: what stands for one, and its rows as they lie there."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from limbeck.errors import DataError
from limbeck.manifest import digest
from limbeck.questions import Raw
from limbeck.sources.files import raw_rows
from limbeck.storage import Store, StoredObject


class Source(NamedTuple):
    """A data set that is there."""

    address: str
    objects: tuple[StoredObject, ...]

    @property
    def content_hash(self) -> str:
        """What stands for it in a stage's inputs."""
        (item,) = self.objects
        return digest([item.sha256 or item.uri, item.bytes])


class RawRow(NamedTuple):
    """One row as it lies there."""

    where: str
    """Its file and its number, from 1: what messages call it."""
    value: Raw


def locate(address: str, store: Store) -> Source:
    """Look a data set up.

    Raises:
        DataError: when there is none.
    """
    item = store.stored(address)
    if item is None:
        raise DataError("no such data set", where=address, remedy="Check the address")
    return Source(address, (item,))


def rows(source: Source, store: Store, columns: Sequence[str]) -> Iterator[RawRow]:
    """All rows, one file after another; on the local disk is one file at a time.

    Args:
        source: The data set.
        store: Where it lies.
        columns: What is read of files that have columns.

    Raises:
        DataError: when a file is not what its name says.
    """
    for item in source.objects:
        with tempfile.TemporaryDirectory() as folder:
            path = store.read_file(item, Path(folder) / "data")
            for number, value in raw_rows(path, item.uri, columns):
                yield RawRow(f"{item.uri}, row {number}", value)
