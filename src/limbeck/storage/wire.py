"""How requests reach the store: boto3's for all that is small and various, a shorter way for bodies.

A call of boto3 costs about 1.6 ms of CPU, most of it in checking and building what never varies here. The
bodies of objects go as botocore's own signer signs them, through the pool of connections of the same client
(so certificates, proxies and timeouts are its own), at half of that.
"""

import re
import threading
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qs, quote, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError, NoCredentialsError, ResponseStreamingError
from botocore.response import StreamingBody
from urllib3.exceptions import HTTPError as URLLib3Error

from limbeck.storage.address import split
from limbeck.storage.connection import connect
from limbeck.storage.failures import DamagedError
from limbeck.storage.patience import Patience

Result = TypeVar("Result")
NO_BODY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""The sha256 of nothing."""
REFUSAL_BYTES = 64 << 10
"""More than a server says of why it refuses."""


class Answer(NamedTuple):
    """What a server sent."""

    headers: Mapping[str, str]
    """Names in any case."""
    body: bytes


class _Place(NamedTuple):
    """Where a bucket's objects are, and for which region requests to it are signed."""

    url: str
    region: str


class Wire:
    """The way to one endpoint, for any number of threads."""

    def __init__(self, deadline_seconds: float | None) -> None:
        """Send nothing yet; see `connect` and `Patience` for what may be wrong."""
        self.client, self.credentials, self.endpoint = connect()
        self._patience = Patience(deadline_seconds)
        self._places: dict[str, _Place] = {}
        # The store's access log tells by it which task asked: AWS_SDK_UA_APP_ID is part of it.
        self._agent = self.client._user_agent_creator.to_string()

    def ask(self, uri: str, request: Callable[[], Result], stop: threading.Event | None = None) -> Result:
        """Send one request, again where that may help; what fails in the end is one line."""
        return self._patience.ask(request, uri, self.endpoint or "AWS S3", stop)

    def get(self, uri: str, num_bytes: int | None = None, first: int = -1) -> Answer:
        """An object whole, or a range of it.

        Args:
            uri: The object.
            num_bytes: How many must come; None: as many as there are.
            first: Where the range begins; -1: the whole object.

        Raises:
            DamagedError: when other bytes come than were asked for.
            ClientError: when the server refuses.
        """
        is_range = num_bytes is not None and first >= 0
        headers = {"Range": f"bytes={first}-{first + (num_bytes or 0) - 1}"} if is_range else {}
        response = self._send("GET", uri, headers=headers)
        announced = response.headers.get("Content-Length")
        body = StreamingBody(response.raw, announced)
        try:
            if num_bytes is not None and announced not in (None, str(num_bytes)):
                got = (
                    "all, as the server knows no ranges"
                    if is_range and response.status_code == 200
                    else announced
                )
                raise DamagedError(f"{num_bytes} bytes", str(got))
            # In one piece, from the socket without a copy.
            data: bytes = body.read() if announced or num_bytes is None else body.read(num_bytes + 1)
        except URLLib3Error as error:  # such as a record of TLS that was changed
            raise ResponseStreamingError(error=error) from error
        finally:
            body.close()
        if num_bytes is not None and len(data) != num_bytes:
            raise DamagedError(f"{num_bytes} bytes", str(len(data)))
        return Answer(response.headers, data)

    def put(
        self, uri: str, data: bytes, sha256: bytes, query: str = "", headers: Mapping[str, str] | None = None
    ) -> str:
        """Send an object, or a part of one, which the server checks before it takes it.

        Args:
            uri: The object.
            data: Its content.
            sha256: Of the content, 32 bytes.
            query: Names the part.
            headers: What is kept beside the object, and conditions.

        Returns:
            The ETag.

        Raises:
            ClientError: when the server refuses.
        """
        # Some servers check the one that is signed, some the other.
        checked = {"x-amz-checksum-sha256": b64encode(sha256).decode(), **(headers or {})}
        response = self._send("PUT", uri, query, data, sha256.hex(), checked)
        return str(response.headers.get("ETag", ""))

    def _send(
        self,
        method: str,
        uri: str,
        query: str = "",
        data: bytes = b"",
        sha256: str = NO_BODY,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        bucket, key = split(uri)
        place = self._places.get(bucket) or self._find(bucket)
        if self.credentials is None:
            raise NoCredentialsError
        request = AWSRequest(
            method=method,
            url=f"{place.url}{quote(key, safe='/~')}{query}",
            data=data,
            headers={"User-Agent": self._agent, "x-amz-content-sha256": sha256, **(headers or {})},
        )
        request.stream_output = method == "GET"
        signer = S3SigV4Auth(self.credentials.get_frozen_credentials(), "s3", place.region)
        signer.payload = lambda _: sha256  # else it would be computed again
        signer.add_auth(request)
        response = self.client._endpoint.http_session.send(request.prepare())
        if response.status_code >= 300:
            raise _refusal(method, response)
        return response

    def _find(self, bucket: str) -> _Place:
        """Ask botocore where a bucket is: it knows AWS's addresses, and both ways of naming buckets."""
        if self.endpoint is None:
            # AWS's buckets have regions; botocore learns one from the first answer, also from a refusal.
            try:
                self.client.head_bucket(Bucket=bucket)
            except ClientError as error:
                if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") not in (403, 404):
                    raise
        signed = urlsplit(self.client.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "k"}))
        region = parse_qs(signed.query)["X-Amz-Credential"][0].split("/")[-3]
        place = _Place(f"{signed.scheme}://{signed.netloc}{signed.path.removesuffix('k')}", region)
        self._places[bucket] = place
        return place


def _refusal(method: str, response: Any) -> ClientError:
    """An answer that is no success, as boto3 would raise it, without the words of the server."""
    body = StreamingBody(response.raw, None).read(REFUSAL_BYTES) if method == "GET" else response.content
    code = re.search(rb"<Code>(\w{1,100})</Code>", body)
    said = {"Code": code[1].decode() if code else str(response.status_code)}
    return ClientError(
        {"Error": said, "ResponseMetadata": {"HTTPStatusCode": response.status_code}}, f"{method}Object"
    )
