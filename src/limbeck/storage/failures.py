"""What can go wrong between here and the store: one line for each, and whether asking again may help."""

import errno
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
    SSLError,
)
from botocore.exceptions import (
    ConnectionError as UnconnectedError,
)
from botocore.parsers import ResponseParserError

from limbeck.errors import StorageError
from limbeck.storage.address import without_userinfo

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a write fails with when a disk, a quota or a size limit is exhausted."""
PASSING_STATUSES = (408, 429, 500, 502, 503, 504)
PASSING_CODES = (
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestThrottled",
    "TooManyRequests",
    "RequestTimeout",
    "InternalError",
    "ServiceUnavailable",
    "OperationAborted",
    "ConditionalRequestConflict",
)
DAMAGED_CODES = (
    "BadDigest",
    "InvalidDigest",
    "IncompleteBody",
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
)
"""How servers call a body that is not what was sent."""
DAMAGED_TRIES = 4
"""What arrives damaged so often is damaged where it lies."""
BAD_CERTIFICATE = "CERTIFICATE_VERIFY_FAILED"


class ObjectError(StorageError):
    """One object is gone or corrupt; the store itself answers."""


class NotFoundError(ObjectError):
    """The object or bucket is not there."""


class DamagedError(Exception):
    """The bytes that arrived are not those that were recorded."""

    def __init__(self, expected: str, got: str) -> None:
        """Say what was recorded and what came."""
        self.expected, self.got = expected, got
        super().__init__(f"expected {expected}, got {got}")


NETWORK = (UnconnectedError, HTTPClientError, IncompleteReadError, ResponseParserError)
ASKED_AGAIN = (ClientError, DamagedError, *NETWORK)
"""What may be worth another try; `may_pass` and `is_damage` look closer."""


def may_pass(error: Exception) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, ClientError):
        return status_of(error) in PASSING_STATUSES or code_of(error) in PASSING_CODES
    if isinstance(error, SSLError):
        return BAD_CERTIFICATE not in str(error)  # else an end of the connection during the handshake
    return isinstance(error, NETWORK)


def is_damage(error: Exception) -> bool:
    """Whether bytes arrived changed, here or there: seldom, so asked again only a few times."""
    return isinstance(error, DamagedError) or (
        isinstance(error, ClientError) and code_of(error) in DAMAGED_CODES
    )


def code_of(error: ClientError) -> str:
    """The server's own word for a refusal, such as `NoSuchBucket`."""
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def status_of(error: ClientError) -> int:
    """The HTTP status of a refusal, 0 if there is none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextmanager
def explained(uri: str, server: str, tried: Callable[[], str] = str) -> Iterator[None]:
    """Turn what boto3 raises into one line that says what to do.

    Args:
        uri: What was asked for.
        server: The endpoint, without a password.
        tried: Says how often and how long, if more than once.
    """
    try:
        yield
    except (EndpointConnectionError, ConnectTimeoutError, ReadTimeoutError) as error:
        raise StorageError(
            "the object store does not answer",
            where=uri,
            expected=f"an S3 server at {server}",
            got=type(error).__name__ + tried(),
            remedy="Check AWS_ENDPOINT_URL, the server and the network",
        ) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise StorageError(
            "no credentials for the object store",
            where=uri,
            expected="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            remedy="Set them, or mount the secret that holds them",
        ) from error
    except ClientError as error:
        raise _of_an_answer(error, uri, server, tried()) from error
    except DamagedError as error:
        raise ObjectError(
            "corrupt object",
            where=uri,
            expected=error.expected,
            got=error.got + tried(),
            remedy="Delete it and run the stage that made it again",
        ) from error
    except (BotoCoreError, Boto3Error, ResponseParserError) as error:
        remedy = f"Check {server} and retry"
        if isinstance(error, SSLError) and BAD_CERTIFICATE in str(error):
            remedy = "Set AWS_CA_BUNDLE to the certificates of the authority that signed the server's"
        said = without_userinfo(str(error)) or type(error).__name__
        raise StorageError("a transfer failed", where=uri, got=said + tried(), remedy=remedy) from error
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise disk_full(uri) from error


def _of_an_answer(error: ClientError, uri: str, server: str, tried: str) -> StorageError:
    """The one-line error for an answer of the server that is not a success.

    What the server says in words is not repeated: it may be the request's headers.
    """
    code, status = code_of(error), status_of(error)
    if code == "NoSuchBucket":
        return NotFoundError("no such bucket", where=uri, got=server, remedy="Create it or correct work_uri")
    if status == 404:
        return NotFoundError("no such object", where=uri, remedy="Check the URI")
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
        "the object store failed", where=uri, got=f"{code} ({status}) from {server}{tried}", remedy=remedy
    )


def answer_of(error: StorageError) -> dict[str, Any]:
    """What the server answered, behind an error that was made of it; empty when nobody answered."""
    return dict(getattr(error.__cause__, "response", None) or {})


def disk_full(where: str) -> StorageError:
    """The one-line error for a local disk without room."""
    return StorageError(
        "the local disk is full",
        where=where,
        got=f"{shutil.disk_usage(tempfile.gettempdir()).free >> 20} MiB free in {tempfile.gettempdir()}",
        remedy="Free space, set TMPDIR, or raise ephemeral-storage, and run again; finished work is kept",
    )
