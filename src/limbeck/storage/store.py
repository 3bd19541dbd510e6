"""The client of the object store that stages hold."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from limbeck.errors import StorageError
from limbeck.keys import misnamed, uploaded_files
from limbeck.storage.address import split
from limbeck.storage.download import Incoming, fetch_files
from limbeck.storage.failures import NotFoundError, code_of, status_of
from limbeck.storage.objects import Listed, StoredObject, Upload, verify
from limbeck.storage.upload import outgoing, read_all, send_files
from limbeck.storage.wire import Wire

DELETED_AT_ONCE = 1000
"""How many keys S3 takes in one request."""
Result = TypeVar("Result")


class Store:
    """A client of one S3-compatible endpoint.

    Endpoint, credentials and region come from the standard variables (`AWS_ENDPOINT_URL`,
    `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`). What may pass is tried again: see
    `patience`.
    """

    def __init__(self, deadline_seconds: float | None = None) -> None:
        """Connect lazily: nothing is sent before the first call.

        Args:
            deadline_seconds: How long a request is tried; None: LIMBECK_STORAGE_DEADLINE_SECONDS, or 120.

        Raises:
            StorageError: when the variables make no client.
        """
        self._wire = Wire(deadline_seconds)
        self._client, self.endpoint = self._wire.client, self._wire.endpoint

    def exists(self, uri: str) -> bool:
        """Whether one object is there."""
        return self.stored(uri) is not None

    def stored(self, uri: str) -> StoredObject | None:
        """Describe one object from its own metadata, or None when it is not there."""
        bucket, key = split(uri)
        try:
            head = self._ask(uri, lambda: self._client.head_object(Bucket=bucket, Key=key))
        except NotFoundError:
            return None
        meta = head["Metadata"]
        rows = meta.get("rows", "")
        return StoredObject(
            uri=uri,
            bytes=head["ContentLength"],
            sha256=meta.get("sha256", ""),
            rows=int(rows) if rows.isdecimal() else 0,  # others may mean something else by it
        )

    def age(self, uri: str) -> float | None:
        """Seconds since an object was written, by the store's own clock: at least so many, at most two more.

        None when the object is not there, or the store does not tell the time.
        """
        bucket, key = split(uri)
        try:
            head = self._ask(uri, lambda: self._client.head_object(Bucket=bucket, Key=key))
            now = parsedate_to_datetime(head["ResponseMetadata"]["HTTPHeaders"].get("date", ""))
        except (NotFoundError, ValueError):
            return None
        written: datetime = head["LastModified"]
        # Both are cut to seconds, and a proxy may double the Date, which hides that it says GMT.
        return max(0.0, (now.replace(tzinfo=UTC) - written).total_seconds() - 1.0)

    def sizes(self, prefix_uri: str) -> dict[str, int]:
        """Size in bytes of every object under a prefix, by URI, in key order.

        Raises:
            StorageError: also when a key there is one that `split` refuses.
        """
        found = self.listing(prefix_uri)
        for uri in found:
            split(uri)
        return {uri: item.bytes for uri, item in found.items()}

    def listing(self, prefix_uri: str) -> dict[str, Listed]:
        """Size and time of every object under a prefix, by URI, in key order.

        Keys are as they were written, also those that `split` refuses.
        """
        found: dict[str, Listed] = {}
        for item in self._pages("list_objects_v2", "Contents", prefix_uri):
            if not item["uri"].endswith("/"):  # else what consoles make to show an empty folder
                found[item["uri"]] = Listed(item["Size"], item["LastModified"])
        return found

    def read_bytes(self, uri: str) -> bytes:
        """Read one small object whole, checked against its recorded sha256.

        Raises:
            StorageError: when it is missing, unreachable or corrupt.
        """
        return self._read(uri)[0]

    def read_tagged(self, uri: str) -> tuple[bytes, str] | None:
        """Content and ETag of one small object, or None when it is not there."""
        try:
            return self._read(uri)
        except NotFoundError:
            return None

    def write_bytes(self, uri: str, data: bytes) -> None:
        """Write one small object in one request, replacing what is there."""
        self._ask(uri, lambda: self._put(uri, data, {}))

    def write_new(self, uri: str, data: bytes) -> str | None:
        """Write one small object unless there is one.

        A request that the server carried out without an answer arriving is sent again, and then finds its
        own object: it is known by its content. Who must know whether it was first writes something that
        nobody else writes.

        Returns:
            The new ETag, or None when there is an object.
        """
        return self._put_if(uri, data, {"If-None-Match": "*"})

    def replace(self, uri: str, data: bytes, etag: str) -> str | None:
        """Write one small object over the one that `etag` stands for; see `write_new` for retries.

        Returns:
            The new ETag, or None when it has changed or is gone, and nothing was written.
        """
        return self._put_if(uri, data, {"If-Match": etag})

    def delete(self, uris: Iterable[str]) -> None:
        """Remove objects, many in one request; those that are gone already are no fault."""
        keys: dict[str, list[str]] = {}
        for uri in uris:
            bucket, key = split(uri)
            keys.setdefault(bucket, []).append(key)
        for bucket, named in keys.items():
            for first in range(0, len(named), DELETED_AT_ONCE):
                self._delete(bucket, named[first : first + DELETED_AT_ONCE])

    def uploads(self, prefix_uri: str) -> list[Upload]:
        """Uploads in parts under a prefix that were begun and are neither finished nor taken back."""
        items = self._pages("list_multipart_uploads", "Uploads", prefix_uri)
        return [Upload(item["uri"], item["UploadId"], item["Initiated"]) for item in items]

    def uploaded_bytes(self, upload: Upload) -> int | None:
        """Size of the parts that an unfinished upload has so far; None when it has ended."""
        bucket, key = split(upload.uri)
        asked = {"Bucket": bucket, "Key": key, "UploadId": upload.upload_id}

        def read() -> int:
            pages = self._client.get_paginator("list_parts").paginate(**asked)
            return sum(part["Size"] for page in pages for part in page.get("Parts", ()))

        try:
            return self._ask(upload.uri, read)
        except NotFoundError:
            return None

    def abort(self, upload: Upload) -> None:
        """Take back an unfinished upload and free its parts; one that has ended already is no fault."""
        bucket, key = split(upload.uri)
        asked = {"Bucket": bucket, "Key": key, "UploadId": upload.upload_id}
        try:
            self._ask(upload.uri, lambda: self._client.abort_multipart_upload(**asked))
        except NotFoundError:
            return

    def write_file(self, path: Path, uri: str, rows: int = 0) -> StoredObject:
        """Upload one file under a name that stands for its content; an object of that name is kept.

        Args:
            path: The local file.
            uri: Where to; the name must carry a hash of the content.
            rows: How many rows the file holds, 0 if it holds none.
        """
        split(uri)
        file = outgoing(path, uri, rows)
        if self.stored(uri) != file.item:
            send_files(self._wire, [file])
        return file.item

    def read_file(self, item: StoredObject, path: Path) -> Path:
        """Download one object; the file appears under its name only when whole and checked.

        Raises:
            StorageError: when it is missing, unreachable or corrupt, or the disk is full.
        """
        fetch_files(self._wire, [Incoming(item, path)])
        return path

    def write_folder(
        self, folder: Path, uri: str, name: str = "", suffixes: tuple[str, ...] = ()
    ) -> tuple[StoredObject, ...]:
        """Upload the files of a folder under `{uri}/{hash of the content}/`, in name order.

        Hidden files (`.git`, `.cache`, `.env`) stay here.

        Args:
            folder: The local folder.
            uri: Where to.
            name: A further folder below the hash, where people should see a name.
            suffixes: Which files alone are meant, in small letters; all when there are none.

        Raises:
            StorageError: also when a link leads out of the folder.
        """
        paths = [path for path in uploaded_files(folder) if path.name.lower().endswith(suffixes or ("",))]
        below = [path.relative_to(folder).as_posix() for path in paths]
        hashed = read_all(paths)
        total = hashlib.sha256()
        for key, file in zip(below, hashed, strict=True):
            total.update(f"{key} {file.item.sha256}\n".encode())
        base = "/".join(filter(None, (uri, total.hexdigest()[:16], name)))
        files = [file.named(f"{base}/{key}") for key, file in zip(below, hashed, strict=True)]
        there = self.listing(base)
        send_files(
            self._wire,
            [file for file in files if file.item.uri not in there or self.stored(file.item.uri) != file.item],
        )
        return tuple(file.item for file in files)

    def read_folder(self, objects: Sequence[StoredObject], base_uri: str, folder: Path) -> Path:
        """Download objects into a folder, under their names below `base_uri`.

        Raises:
            StorageError: also when an object lies outside `base_uri` or would leave the folder; then
                nothing is downloaded.
        """
        base = base_uri.rstrip("/") + "/"
        names = {item.uri.removeprefix(base): item for item in objects}
        if outside := misnamed(names):  # a whole address is no name: it has two slashes
            raise StorageError(
                "an object lies outside its folder",
                where=repr(names[outside[0]].uri)[:200],
                expected=f"a file's name below {base_uri}",
                remedy="The manifest is damaged or forged; make it again",
            )
        fetch_files(self._wire, [Incoming(item, folder / name) for name, item in names.items()])
        return folder

    def make_bucket(self, uri: str) -> None:
        """Create the bucket of a URI unless it is there."""
        bucket, _ = split(uri)
        try:
            self._ask(uri, lambda: self._client.head_bucket(Bucket=bucket))
        except NotFoundError:
            self._ask(uri, lambda: self._client.create_bucket(Bucket=bucket))

    def _ask(self, uri: str, request: Callable[[], Result]) -> Result:
        """Send one request, again where that may help; what fails in the end is one line."""
        return self._wire.ask(uri, request)

    def _read(self, uri: str) -> tuple[bytes, str]:
        def read() -> tuple[bytes, str]:
            answer = self._wire.get(uri)
            verify(answer.body, answer.headers.get("x-amz-meta-sha256", ""))
            return answer.body, answer.headers.get("ETag", "")

        return self._ask(uri, read)

    def _put(self, uri: str, data: bytes, condition: Mapping[str, str]) -> str:
        digest = hashlib.sha256(data).digest()
        return self._wire.put(uri, data, digest, headers={"x-amz-meta-sha256": digest.hex(), **condition})

    def _put_if(self, uri: str, data: bytes, condition: Mapping[str, str]) -> str | None:
        tries = 0

        def put() -> str | None:
            nonlocal tries
            tries += 1
            try:
                return self._put(uri, data, condition)
            except ClientError as error:
                if not _is_unmet(error):
                    raise
                return None

        tag = self._ask(uri, put)
        if tag is None and tries > 1:
            there = self.read_tagged(uri)
            return there[1] if there and there[0] == data else None
        return tag

    def _delete(self, bucket: str, keys: Sequence[str]) -> None:
        asked = {"Objects": [{"Key": key} for key in keys], "Quiet": True}

        def delete() -> None:
            answer = self._client.delete_objects(Bucket=bucket, Delete=asked)
            for said in answer.get("Errors", ()):
                status = {"HTTPStatusCode": 403 if said.get("Code") == "AccessDenied" else 200}
                raise ClientError({"Error": said, "ResponseMetadata": status}, "DeleteObjects")

        self._ask(f"s3://{bucket}/{keys[0]}", delete)

    def _pages(self, operation: str, entries: str, prefix_uri: str) -> list[dict[str, Any]]:
        """All entries of a listing, each with its URI; a page that fails begins it anew."""
        bucket, prefix = split(prefix_uri)
        scheme = prefix_uri.partition("://")[0]

        def read() -> list[dict[str, Any]]:
            pages = self._client.get_paginator(operation).paginate(
                Bucket=bucket, Prefix=prefix.rstrip("/") + "/" if prefix else ""
            )
            return [item for page in pages for item in page.get(entries, ())]

        return [item | {"uri": f"{scheme}://{bucket}/{item['Key']}"} for item in self._ask(prefix_uri, read)]


def _is_unmet(error: ClientError) -> bool:
    """Whether a write was refused because its condition did not hold."""
    return status_of(error) == 412 or code_of(error) == "NoSuchKey"
