"""A store in memory with a clock that a test sets: the public methods of `Store`, without a server.

The same tests' subjects run on a real server too.
"""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from limbeck.storage import Listed, Store, StoredObject, Upload


class MemoryStore(Store):
    """Objects by URI; each write takes the clock's time."""

    def __init__(self) -> None:
        self.endpoint = None  # and no client: nothing is sent
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.objects: dict[str, tuple[bytes, datetime, int]] = {}
        self.begun: list[Upload] = []
        self.part_bytes: dict[Upload, int] = {}
        """Of uploads whose parts are not empty."""
        self._writes = 0

    def put(self, uri: str, data: bytes, age: timedelta = timedelta()) -> None:
        """Write an object of some age."""
        self._writes += 1
        self.objects[uri] = (data, self.now - age, self._writes)

    def exists(self, uri: str) -> bool:
        return uri in self.objects

    def stored(self, uri: str) -> StoredObject | None:
        if uri not in self.objects:
            return None
        data = self.objects[uri][0]
        return StoredObject(uri=uri, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    def sizes(self, prefix_uri: str) -> dict[str, int]:
        return {uri: item.bytes for uri, item in self.listing(prefix_uri).items()}

    def listing(self, prefix_uri: str) -> dict[str, Listed]:
        return {
            uri: Listed(len(data), modified)
            for uri, (data, modified, _) in sorted(self.objects.items())
            if uri.startswith(prefix_uri.rstrip("/") + "/")
        }

    def read_bytes(self, uri: str) -> bytes:
        return self.objects[uri][0]

    def write_bytes(self, uri: str, data: bytes) -> None:
        self.put(uri, data)

    def read_tagged(self, uri: str) -> tuple[bytes, str] | None:
        return (self.objects[uri][0], str(self.objects[uri][2])) if uri in self.objects else None

    def write_new(self, uri: str, data: bytes) -> str | None:
        return None if uri in self.objects else self._put_tagged(uri, data)

    def replace(self, uri: str, data: bytes, etag: str) -> str | None:
        found = self.read_tagged(uri)
        return self._put_tagged(uri, data) if found and found[1] == etag else None

    def age(self, uri: str) -> float | None:
        return (self.now - self.objects[uri][1]).total_seconds() if uri in self.objects else None

    def delete(self, uris: Iterable[str]) -> None:
        for uri in uris:
            self.objects.pop(uri, None)

    def uploads(self, prefix_uri: str) -> list[Upload]:
        return [item for item in self.begun if item.uri.startswith(prefix_uri.rstrip("/") + "/")]

    def uploaded_bytes(self, upload: Upload) -> int | None:
        return self.part_bytes.get(upload, 0) if upload in self.begun else None

    def abort(self, upload: Upload) -> None:
        self.begun.remove(upload)

    def _put_tagged(self, uri: str, data: bytes) -> str:
        self.put(uri, data)
        return str(self._writes)
