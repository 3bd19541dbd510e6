"""Names of objects and files: which are taken, and which could mean another object or another file.

Keys come from listings and manifests that others may have written, and become paths on the local disk.
Some servers read `//` and a backslash as `/` (SeaweedFS 4.48 does), and walk along `..`; all of these are
refused. Nothing else is changed or decoded: `%2e`, `?` and `#` mean themselves.
"""

import os
import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from limbeck.errors import StorageError

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What ends lines, turns the direction of text, or is no text at all."""
KEY_BYTES, NAME_BYTES = 1024, 255
"""The longest key of S3, and the longest name of a file."""


def fault(key: str) -> str:
    """Why a key, or a name below a prefix, is refused; empty when it is not."""
    names = key.split("/")
    if key and "" in names:
        return "an empty name"
    if "." in names or ".." in names:
        return "a name that means a folder"
    if "\\" in key or CONTROL.search(key):
        return "a backslash or control character"
    return "a longer one" if _bytes(key) > KEY_BYTES else ""


def misnamed(names: Collection[str]) -> list[str]:
    """Those of all names below a prefix that cannot be names of files below a folder.

    What is also the folder of another one is no file; what is longer than a disk's names is none either.
    """
    folders = {parent.as_posix() for name in names for parent in PurePosixPath(name).parents}
    return [
        name
        for name in names
        if fault(name) or name in folders or not 0 < max(map(_bytes, name.split("/"))) <= NAME_BYTES
    ]


def uploaded_files(folder: Path) -> list[Path]:
    """The files of a folder that may leave this machine, in name order.

    A link may lead to a file of the folder or, out of a snapshot of Hugging Face's cache, to its blobs:
    a folder from elsewhere would else take along what it has no business with.

    Raises:
        StorageError: for any other link.
    """
    root = folder.resolve()
    allowed = [root, root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [root]
    files = []
    for path in sorted(folder.rglob("*")):
        if any(name.startswith(".") for name in path.relative_to(folder).parts):
            continue
        if path.is_symlink():
            target = Path(os.path.realpath(path))  # Path.resolve raises for loops
            if not target.is_file() or not any(target.is_relative_to(place) for place in allowed):
                raise StorageError(
                    "a link that leads out of its folder, to a folder, or nowhere",
                    where=str(path),
                    got=str(target),
                    remedy=f"If that is meant, upload a copy: `cp -rL {folder} COPY`",
                )
        if path.is_file():
            files.append(path)
    return files


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
