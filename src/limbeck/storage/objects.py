"""What the store says of its objects, and what stages say of theirs."""

import hashlib
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from limbeck.storage.failures import DamagedError


class StoredObject(BaseModel):
    """One object in the store. Written by `Store.write_file`; listed in manifests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    bytes: int
    sha256: str
    rows: int = 0


class Listed(NamedTuple):
    """What a listing says of an object."""

    bytes: int
    modified: datetime
    """When it was written, with the time zone."""


class Upload(NamedTuple):
    """An upload in parts that was begun and neither finished nor taken back; its parts take up room."""

    uri: str
    """The key is as it was written, also one that `split` refuses."""
    upload_id: str
    started: datetime
    """When it was begun, with the time zone."""


def sha256(path: Path) -> str:
    """Hex sha256 of a file, read in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(data: bytes, recorded: str) -> None:
    """Check bytes against the sha256 that was recorded of them; objects of others carry none.

    Raises:
        DamagedError: when they are others.
    """
    got = hashlib.sha256(data).hexdigest()
    if recorded and got != recorded:
        raise DamagedError(f"sha256 {recorded[:12]}", got[:12])
