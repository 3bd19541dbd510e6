"""The object store: every byte between stages passes here, and only here.

The one importer of boto3. Addresses are URIs (`s3://bucket/key`; `minio://` reads the same). Every
object is written with its sha256 beside it and checked against it when read, and no object is ever
replaced by another content: names that hold data carry a hash of it. Keys come from listings and
manifests that others may have written, so each is checked before it is used: see `split`.
"""

import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config as BotoConfig
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
)
from pydantic import BaseModel, ConfigDict
from s3transfer.exceptions import S3ValidationError

from limbeck.errors import StorageError
from limbeck.keys import KEY_BYTES, fault, misnamed, uploaded_files

ADDRESS = re.compile(r"(?P<scheme>s3|minio)://(?P<bucket>\w[\w.-]*)(/(?P<key>.*))?", re.ASCII | re.DOTALL)
CHUNK_BYTES = 8 << 20
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a write fails with when a disk, a quota or a size limit is exhausted."""


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


class Store:
    """A client of one S3-compatible endpoint.

    Endpoint, credentials and region come from the standard variables (`AWS_ENDPOINT_URL`,
    `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`).
    """

    def __init__(self) -> None:
        """Connect lazily: nothing is sent before the first call.

        Raises:
            StorageError: when the variables make no client.
        """
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        self.endpoint = endpoint and without_userinfo(endpoint)
        config = BotoConfig(
            retries={"mode": "standard", "max_attempts": 4},
            connect_timeout=5,
            read_timeout=60,
            # Path style works on every server; virtual-host style needs wildcard DNS.
            s3={"addressing_style": "path" if self.endpoint else "auto"},
        )
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        try:
            session = boto3.Session()  # the module's default session would keep credentials it saw before
            self._client: Any = session.client("s3", region_name=region, config=config)
        except (BotoCoreError, ValueError) as error:
            # What boto3 says of an address repeats it, password and all.
            said = without_userinfo(str(error)) if isinstance(error, BotoCoreError) else self.endpoint
            raise StorageError(
                "no client of the object store",
                where="the AWS_* variables",
                expected="AWS_ENDPOINT_URL such as https://host:port, and a profile and region that exist",
                got=said,
                remedy="Correct them",
            ) from None

    def exists(self, uri: str) -> bool:
        """Whether one object is there."""
        return self.stored(uri) is not None

    def stored(self, uri: str) -> StoredObject | None:
        """Describe one object from its own metadata, or None when it is not there."""
        bucket, key = split(uri)
        try:
            with self._explained(uri):
                head = self._client.head_object(Bucket=bucket, Key=key)
        except _NotFoundError:
            return None
        meta = head["Metadata"]
        rows = meta.get("rows", "")
        return StoredObject(
            uri=uri,
            bytes=head["ContentLength"],
            sha256=meta.get("sha256", ""),
            rows=int(rows) if rows.isdecimal() else 0,  # others may mean something else by it
        )

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
        bucket, prefix = split(prefix_uri)
        scheme = prefix_uri.partition("://")[0]
        found: dict[str, Listed] = {}
        with self._explained(prefix_uri):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=bucket, Prefix=prefix.rstrip("/") + "/" if prefix else ""
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    uri = f"{scheme}://{bucket}/{item['Key']}"
                    if not uri.endswith("/"):  # else what consoles make to show an empty folder
                        found[uri] = Listed(item["Size"], item["LastModified"])
        return found

    def read_bytes(self, uri: str) -> bytes:
        """Read one small object whole, checked against its recorded sha256.

        Raises:
            StorageError: when it is missing, unreachable or corrupt.
        """
        bucket, key = split(uri)
        with self._explained(uri):
            answer = self._client.get_object(Bucket=bucket, Key=key)
            data: bytes = answer["Body"].read()
        _verify(uri, hashlib.sha256(data).hexdigest(), answer["Metadata"].get("sha256", ""))
        return data

    def write_bytes(self, uri: str, data: bytes) -> None:
        """Write one small object in one request, replacing what is there."""
        bucket, key = split(uri)
        with self._explained(uri):
            self._client.put_object(
                Bucket=bucket,
                Key=key,
                Body=data,
                Metadata={"sha256": hashlib.sha256(data).hexdigest()},
            )

    def write_file(self, path: Path, uri: str, rows: int = 0) -> StoredObject:
        """Upload one file under a name that stands for its content; an object of that name is kept.

        Args:
            path: The local file.
            uri: Where to; the name must carry a hash of the content.
            rows: How many rows the file holds, 0 if it holds none.
        """
        bucket, key = split(uri)
        item = StoredObject(uri=uri, bytes=path.stat().st_size, sha256=sha256(path), rows=rows)
        if self.stored(uri) == item:
            return item
        with self._explained(uri):
            self._client.upload_file(
                str(path),
                bucket,
                key,
                ExtraArgs={"Metadata": {"sha256": item.sha256, "rows": str(rows)}},
                Config=TransferConfig(multipart_chunksize=CHUNK_BYTES),
            )
        return item

    def read_file(self, item: StoredObject, path: Path) -> Path:
        """Download one object; the file appears under its name only when whole and checked.

        Raises:
            StorageError: when it is missing, unreachable or corrupt, or the disk is full.
        """
        bucket, key = split(item.uri)
        partial = path.with_name(path.name + ".part")
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._explained(item.uri):
            self._client.download_file(bucket, key, str(partial))
        try:
            _verify(item.uri, sha256(partial), item.sha256)
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)
        return path

    def write_folder(self, folder: Path, uri: str, name: str = "") -> tuple[StoredObject, ...]:
        """Upload the files of a folder under `{uri}/{hash of the content}/`, in name order.

        Hidden files (`.git`, `.cache`, `.env`) stay here.

        Args:
            folder: The local folder.
            uri: Where to.
            name: A further folder below the hash, where people should see a name.

        Raises:
            StorageError: also when a link leads out of the folder.
        """
        files = uploaded_files(folder)
        below = [path.relative_to(folder).as_posix() for path in files]
        total = hashlib.sha256()
        for path, key in zip(files, below, strict=True):
            total.update(f"{key} {sha256(path)}\n".encode())
        base = "/".join(filter(None, (uri, total.hexdigest()[:16], name)))
        return tuple(self.write_file(path, f"{base}/{key}") for path, key in zip(files, below, strict=True))

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
        for name, item in names.items():
            self.read_file(item, folder / name)
        return folder

    def delete(self, uris: Iterable[str]) -> None:
        """Delete objects; what is gone already is no error."""
        for uri in uris:
            bucket, key = split(uri)
            with self._explained(uri):
                self._client.delete_object(Bucket=bucket, Key=key)

    def make_bucket(self, uri: str) -> None:
        """Create the bucket of a URI unless it is there."""
        bucket, _ = split(uri)
        try:
            with self._explained(uri):
                self._client.head_bucket(Bucket=bucket)
        except _NotFoundError:
            with self._explained(uri):
                self._client.create_bucket(Bucket=bucket)

    @contextmanager
    def _explained(self, uri: str) -> Iterator[None]:
        """Turn what boto3 raises into one line that says what to do."""
        server = self.endpoint or "AWS S3"
        try:
            yield
        except (EndpointConnectionError, ConnectTimeoutError) as error:
            raise StorageError(
                "the object store does not answer",
                where=uri,
                expected=f"an S3 server at {server}",
                got=type(error).__name__,
                remedy="Check AWS_ENDPOINT_URL, the server and the network",
            ) from error
        except NoCredentialsError as error:
            raise StorageError(
                "no credentials for the object store",
                where=uri,
                expected="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
                remedy="Set them, or mount the secret that holds them",
            ) from error
        except ClientError as error:
            raise _from_client_error(error, uri, server) from error
        except (BotoCoreError, Boto3Error, S3ValidationError) as error:
            # boto3 says of a refused upload all that the server said, which may be the request's headers.
            if isinstance(error.__context__, ClientError):
                raise _from_client_error(error.__context__, uri, server) from error
            said = without_userinfo(str(error))
            raise StorageError(
                "a transfer failed", where=uri, got=said, remedy=f"Check {server} and retry"
            ) from error
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise disk_full(uri) from error


class ObjectError(StorageError):
    """One object is gone or corrupt; the store itself answers."""


class _NotFoundError(ObjectError):
    """The object or bucket is not there."""


def _from_client_error(error: ClientError, uri: str, server: str) -> StorageError:
    """The one-line error for an answer of the server that is not a success."""
    code = str(error.response.get("Error", {}).get("Code", "unknown"))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "NoSuchBucket":
        return _NotFoundError("no such bucket", where=uri, got=server, remedy="Create it or correct work_uri")
    if status == 404:
        return _NotFoundError("no such object", where=uri, remedy="Check the URI")
    if status in (401, 403):
        return StorageError(
            "the object store refuses these credentials",
            where=uri,
            expected="a key that may read and write there",
            got=f"{code} from {server}",
            remedy="Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    if status == 507 or "storage" in code.lower() or "disk" in str(error).lower():
        remedy = "The server's disk is full: free space there and run again; finished work is kept"
    else:
        remedy = "Look at the server's log, then run again"
    return StorageError(
        "the object store failed", where=uri, got=f"{code} ({status}) from {server}", remedy=remedy
    )


def disk_full(where: str) -> StorageError:
    """The one-line error for a local disk without room."""
    return StorageError(
        "the local disk is full",
        where=where,
        got=f"{shutil.disk_usage(tempfile.gettempdir()).free >> 20} MiB free in {tempfile.gettempdir()}",
        remedy="Free space, set TMPDIR, or raise ephemeral-storage, and run again; finished work is kept",
    )


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


def sha256(path: Path) -> str:
    """Hex sha256 of a file, read in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(uri: str, got: str, expected: str) -> None:
    """Raise when an object's bytes are not what was recorded; objects of others carry no record."""
    if expected and got != expected:
        raise ObjectError(
            "corrupt object",
            where=uri,
            expected=f"sha256 {expected[:12]}",
            got=got[:12],
            remedy="Delete it and run the stage that made it again",
        )
