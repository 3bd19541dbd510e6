"""Files on their way up: each appears whole or not at all, with its sha256 beside it."""

import hashlib
import os
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from botocore.exceptions import BotoCoreError, ClientError

from limbeck.errors import StorageError
from limbeck.storage.address import split
from limbeck.storage.failures import code_of
from limbeck.storage.meter import Meter
from limbeck.storage.objects import StoredObject, sha256
from limbeck.storage.wire import Wire
from limbeck.storage.workers import PART_BYTES, Part, Workers, parts_of

RESTARTS = 3
"""How often an upload begins anew whose parts the server has lost."""


class Outgoing(NamedTuple):
    """A file that has been read once."""

    path: Path
    item: StoredObject
    changed_ns: int
    """When its content was last changed before it was read."""

    def named(self, uri: str) -> "Outgoing":
        """The same with an address."""
        return self._replace(item=self.item.model_copy(update={"uri": uri}))


def outgoing(path: Path, uri: str, rows: int = 0) -> Outgoing:
    """Read a file for its hash: its name in the store, and the metadata sent ahead of it, need that."""
    before = path.stat()
    item = StoredObject(uri=uri, bytes=before.st_size, sha256=sha256(path), rows=rows)
    return Outgoing(path, item, before.st_mtime_ns)


def read_all(paths: Sequence[Path]) -> list[Outgoing]:
    """Read files for their hashes, several at once; they get their names afterwards."""
    with Workers() as workers:
        return workers.each(lambda path: outgoing(path, ""), paths)


def send_files(wire: Wire, files: Sequence[Outgoing]) -> None:
    """Upload files, several at once.

    Raises:
        StorageError: also when a file changes meanwhile.
    """
    meter = Meter("upload", sum(file.item.bytes for file in files))
    with Workers() as workers:
        if len(files) == 1 and files[0].item.bytes <= PART_BYTES:
            _send(wire, workers, meter, files[0])
        else:
            workers.each(lambda file: _send(wire, workers, meter, file), files)


def _send(wire: Wire, workers: Workers, meter: Meter, file: Outgoing) -> None:
    if file.item.bytes > PART_BYTES:
        _send_parts(wire, workers, meter, file)
        return
    uri, digest = file.item.uri, bytes.fromhex(file.item.sha256)
    meta = {f"x-amz-meta-{name}": value for name, value in _meta(file.item).items()}
    data = file.path.read_bytes()
    _check_unchanged(file)
    wire.ask(uri, lambda: wire.put(uri, data, digest, headers=meta), workers.stop)
    meter.add(file.item.bytes)


def _send_parts(wire: Wire, workers: Workers, meter: Meter, file: Outgoing) -> None:
    """Upload a large file in parts, and once more if the server knows nothing of them.

    It may have lost them in a restart; or it has made the object, and its answer was lost.
    """
    for restarts in range(RESTARTS + 1):
        try:
            with _begun(wire, workers, file.item) as upload_id:
                sent = _parts(wire, workers, meter, file, upload_id)
                _check_unchanged(file)
                _complete(wire, workers, file.item, upload_id, sent)
        except StorageError as error:
            if not _is_lost(error) or restarts == RESTARTS:
                raise
        else:
            return


@contextmanager
def _begun(wire: Wire, workers: Workers, item: StoredObject) -> Iterator[str]:
    """An upload in parts, which is taken back when the block fails: else its parts would take up room."""
    bucket, key = split(item.uri)
    asked = {"Bucket": bucket, "Key": key, "Metadata": _meta(item), "ChecksumAlgorithm": "SHA256"}
    upload_id = wire.ask(
        item.uri, lambda: wire.client.create_multipart_upload(**asked)["UploadId"], workers.stop
    )
    try:
        yield upload_id
    except BaseException:
        with suppress(BotoCoreError, ClientError):  # the first failure is the one to tell
            wire.client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
        raise


def _parts(
    wire: Wire, workers: Workers, meter: Meter, file: Outgoing, upload_id: str
) -> list[Mapping[str, object]]:
    """Send all parts; gives what the server wants to hear of them in the end."""
    uri = file.item.uri
    with file.path.open("rb", buffering=0) as opened:

        def send(part: Part) -> Mapping[str, object]:
            data = os.pread(opened.fileno(), part.num_bytes, part.first)
            digest = hashlib.sha256(data).digest()
            query = f"?partNumber={part.number}&uploadId={quote(upload_id, safe='')}"
            tag = wire.ask(uri, lambda: wire.put(uri, data, digest, query), workers.stop)
            meter.add(part.num_bytes)
            return {
                "PartNumber": part.number,
                "ETag": tag,
                "ChecksumSHA256": b64encode(digest).decode(),
            }

        return list(workers.in_order(send, parts_of(file.item.bytes)))


def _complete(
    wire: Wire, workers: Workers, item: StoredObject, upload_id: str, sent: Sequence[Mapping[str, object]]
) -> None:
    """Make the object of its parts."""
    bucket, key = split(item.uri)
    asked = {"Bucket": bucket, "Key": key, "UploadId": upload_id, "MultipartUpload": {"Parts": sent}}
    wire.ask(item.uri, lambda: wire.client.complete_multipart_upload(**asked), workers.stop)


def _meta(item: StoredObject) -> dict[str, str]:
    """What is kept beside an object."""
    return {"sha256": item.sha256, "rows": str(item.rows)}


def _check_unchanged(file: Outgoing) -> None:
    now = file.path.stat()
    if (now.st_mtime_ns, now.st_size) != (file.changed_ns, file.item.bytes):
        raise StorageError(
            "a file changed while it was uploaded",
            where=str(file.path),
            remedy="Upload it again once nothing writes to it",
        )


def _is_lost(error: StorageError) -> bool:
    return isinstance(error.__cause__, ClientError) and code_of(error.__cause__) == "NoSuchUpload"
