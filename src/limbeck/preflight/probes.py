"""A client of the object store that asks for more than stages do: clock, ranges, uploads taken back."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from limbeck.errors import StorageError
from limbeck.storage import Store, answer_of, split

DEADLINE_SECONDS = 5.0


class Greeting(NamedTuple):
    """The server's answer to a first request."""

    refusal: StorageError | None
    code: str
    """Its own word for the refusal, such as `NoSuchBucket`; empty when there is none."""
    time: datetime | None
    """The server's clock."""


class ProbedStore(Store):
    """The client that preflight probes with; data and models are looked at through it too."""

    def __init__(self) -> None:
        """Connect lazily, and wait less than stages do: a person waits for the findings."""
        super().__init__(deadline_seconds=DEADLINE_SECONDS)

    def greet(self, uri: str) -> Greeting:
        """List one object of the bucket of a URI.

        Raises:
            StorageError: when nobody answers there, or without credentials to ask with.
        """
        bucket, _ = split(uri)
        refusal = None
        try:
            answer = self._ask(uri, lambda: self._client.list_objects_v2(Bucket=bucket, MaxKeys=1))
        except StorageError as error:
            answer = answer_of(error)
            if not answer:
                raise
            refusal = error
        date = answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date")
        code = str(answer.get("Error", {}).get("Code", "unknown")) if refusal else ""
        return Greeting(refusal, code, _time(date))

    def read_range(self, uri: str, first: int, count: int) -> bytes:
        """Up to `count` bytes of an object from byte `first` on.

        Raises:
            StorageError: also when the server sends other bytes than were asked for.
        """
        bucket, key = split(uri)
        asked = {"Bucket": bucket, "Key": key, "Range": f"bytes={first}-{first + count - 1}"}

        def read() -> tuple[bytes, str]:
            answer = self._client.get_object(**asked)
            return answer["Body"].read(count), str(answer.get("ContentRange", ""))

        data, content_range = self._ask(uri, read)
        if not content_range.startswith(f"bytes {first}-"):
            raise StorageError(
                "the object store ignores ranges",
                where=uri,
                expected=f"bytes {first} to {first + count - 1}",
                got="the whole object",
                remedy="Use a server, or a proxy before it, that serves ranges",
            )
        return data

    def abandon_upload(self, uri: str, data: bytes) -> None:
        """Begin an upload in parts and take it back: what a transfer does that fails half-way."""
        bucket, key = split(uri)

        def begin_and_abort() -> None:
            upload = self._client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
            self._client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=data)
            self._client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)

        self._ask(uri, begin_and_abort)


def _time(date: str | None) -> datetime | None:
    """A Date header as a time, or None when it is no date.

    A proxy may double the header, and Python then overlooks that it says GMT.
    """
    try:
        moment = parsedate_to_datetime(date or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
