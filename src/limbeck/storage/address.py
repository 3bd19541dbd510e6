"""Addresses in the object store: `s3://bucket/key`; `minio://` reads the same."""

import re

from limbeck.errors import StorageError
from limbeck.keys import KEY_BYTES, fault

ADDRESS = re.compile(r"(?P<scheme>s3|minio)://(?P<bucket>\w[\w.-]*)(/(?P<key>.*))?", re.ASCII | re.DOTALL)


def split(uri: str) -> tuple[str, str]:
    """Bucket and key of an object-store URI, the key as it is: `%2e`, `?` and `#` mean themselves.

    Raises:
        StorageError: when it is not one, or its key is one that `limbeck.keys` refuses.
    """
    parts = ADDRESS.fullmatch(uri)
    if parts is None:
        raise StorageError(
            "not an object-store address",
            where=repr(without_userinfo(uri))[:200],
            expected="s3://bucket/path",
            remedy="Upload the data first; `limbeck run` does that for local files",
        )
    key = (parts["key"] or "").lstrip("/")
    if said := fault(key.rstrip("/")):
        raise StorageError(
            "an object key that may leave its prefix",
            where=repr(uri)[:200],
            expected=f"at most {KEY_BYTES} bytes, and plain names between single slashes",
            got=said,
            remedy="Give the object another name",
        )
    return parts["bucket"], key


def without_userinfo(text: str) -> str:
    """A text whose addresses have lost the user and password before their `@`."""
    return re.sub(r"(\w+://)?\S*@", r"\1***@", text)
