"""Checks of the object store: what every stage relies on is tried, below `work_uri`, and cleaned up."""

import os
import tempfile
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from limbeck.errors import ConfigError, StorageError
from limbeck.preflight.findings import Finding, collected, warning
from limbeck.preflight.probes import ProbedStore
from limbeck.storage import CHUNK_BYTES, split

SECRET_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")
IN_CLUSTER = "KUBERNETES_SERVICE_HOST"
"""A variable that every pod has."""
# Refusals that concern the key or the clock, not one address: no other request would fare better.
KEY_REFUSED = (
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "RequestTimeTooSkewed",
)
WRONG_REGION = ("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException")
SKEW_WARNING_SECONDS = 60
SKEW_ERROR_SECONDS = 300
"""S3 refuses requests from 15 minutes on (RequestTimeTooSkewed); a clock that drifts gets there."""


def is_nowhere() -> bool:
    """Whether no variable names a store or a key, as on a laptop that `limbeck run` serves itself."""
    named = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_PROFILE", IN_CLUSTER)
    return not any(os.environ.get(name) for name in named)


class Opened(NamedTuple):
    """A first contact with the store."""

    client: ProbedStore | None
    """None when no request can succeed: then nothing in the store can be looked at."""
    has_bucket: bool
    """Whether the bucket that was asked for may be there."""
    findings: list[Finding]


def open_store(uri: str) -> Opened:
    """Connect, and check all that concerns the store as a whole.

    Args:
        uri: An address in it, `work_uri` if that is one.
    """
    findings = _variables()
    if findings:
        return Opened(None, False, findings)
    with collected(findings):
        store = ProbedStore()
        greeting = store.greet(uri)
        findings += clock(greeting.time, datetime.now(UTC))
        if greeting.code in WRONG_REGION:
            raise StorageError(
                "the bucket is in another region",
                where=uri,
                got=greeting.code,
                remedy="Set AWS_REGION, in the secret too, to the bucket's",
            )
        if greeting.refusal:
            findings.append(Finding(greeting.refusal))
        if greeting.code not in KEY_REFUSED:
            return Opened(store, greeting.code != "NoSuchBucket", findings)
    return Opened(None, False, findings)


def _variables() -> list[Finding]:
    """What is wrong with the AWS_* variables; in a pod, each comes from a key of the run's secret."""
    findings = []
    for name in SECRET_KEYS:
        value = os.environ.get(name, "")
        if not value and IN_CLUSTER in os.environ:
            aws = "https://s3.REGION.amazonaws.com for AWS, else your server's address"
            error = ConfigError(
                f"no {name}",
                where=f"key {name} of the secret that the parameter `s3_secret` names",
                expected=aws if name == "AWS_ENDPOINT_URL" else None,
                remedy="Make the secret in the run's namespace, from manifests/examples/s3-secret.yaml",
            )
            findings.append(Finding(error))
        if value != value.strip():
            error = ConfigError(
                f"white space around {name}",
                where=f"the variable, or key {name} of the secret",
                remedy="Write it again without a line end (`printf %s`, not `echo`)",
            )
            findings.append(Finding(error))
    with collected(findings):
        _check_endpoint(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", ""))
    return findings


def _check_endpoint(endpoint: str) -> None:
    """The address of the server is one, and holds no password: messages name it."""
    if "@" in endpoint:
        raise ConfigError(
            "a password in AWS_ENDPOINT_URL",
            expected="https://host:port",
            remedy="Put key and secret into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    try:
        parts = urlsplit(endpoint.strip())
        is_address = parts.scheme in ("http", "https") and parts.netloc != ""
    except ValueError:  # brackets around what is no IPv6 address
        is_address = False
    if endpoint and not is_address:
        raise ConfigError(
            "AWS_ENDPOINT_URL is no address",
            expected="https://host:port",
            remedy="Correct it, in the secret too",
        )


def clock(server: datetime | None, here: datetime) -> list[Finding]:
    """Compare this machine's clock with the server's."""
    if server is None:
        return []
    seconds = (here - server).total_seconds()
    if abs(seconds) < SKEW_WARNING_SECONDS:
        return []
    error = StorageError(
        "the clocks of this node and the object store differ",
        expected=f"less than {SKEW_WARNING_SECONDS} s",
        got=f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} the store",
        remedy="Set the clocks by NTP; S3 refuses requests from 15 minutes on",
    )
    return [Finding(error) if abs(seconds) >= SKEW_ERROR_SECONDS else warning(error)]


def probe(store: ProbedStore, work_uri: str) -> list[Finding]:
    """Try what stages do, on objects below `{work_uri}/preflight/` that are removed again."""
    split(work_uri)
    base = f"{work_uri.rstrip('/')}/preflight/{uuid.uuid4().hex}"
    findings: list[Finding] = []
    with collected(findings):
        store.write_bytes(f"{base}/small", b"0123456789")
    if findings:
        return findings  # without the right to write, all else fails for the same reason
    written = [f"{base}/small"]
    probes: list[Callable[[ProbedStore, str], None]] = [_read, _list, _in_parts, _abandon]
    for attempt in probes:
        with collected(findings):
            attempt(store, base)
    findings += _conditions(store, base)
    written += [f"{base}/parts", f"{base}/condition"]
    unremoved: list[Finding] = []
    for uri in written:
        with collected(unremoved):
            store.delete([uri])
    return findings + [warning(finding.error) for finding in unremoved[:1]]


def _read(store: ProbedStore, base: str) -> None:
    """Read an object back whole, and a range of it."""
    uri = f"{base}/small"
    if store.read_bytes(uri) != b"0123456789" or store.read_range(uri, 3, 4) != b"3456":
        raise _broken("what was written does not come back", uri)


def _list(store: ProbedStore, base: str) -> None:
    """A new object is in the listing at once: that is how stages find finished work."""
    if store.sizes(base) != {f"{base}/small": 10}:
        raise _broken("a new object is missing from the listing", base)


def _in_parts(store: ProbedStore, base: str) -> None:
    """An object that is larger than one part, on the way that checkpoints take."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "parts"
        path.write_bytes(bytes(CHUNK_BYTES) + b"end")
        item = store.write_file(path, f"{base}/parts")
        store.read_file(item, Path(folder) / "back")


def _abandon(store: ProbedStore, base: str) -> None:
    """An upload that is taken back leaves nothing."""
    uri = f"{base}/abandoned"
    store.abandon_upload(uri, b"part")
    if store.exists(uri):
        raise _broken("an abandoned upload left an object", uri)


def _conditions(store: ProbedStore, base: str) -> list[Finding]:
    """Writes that happen only if nobody was faster: they keep two attempts of a stage apart."""
    uri = f"{base}/condition"
    remedy = "Update the server, or take another one: leases rest on this"
    findings: list[Finding] = []
    with collected(findings):
        etag = store.write_new(uri, b"1")
        if store.write_new(uri, b"2") is not None:
            raise _broken("If-None-Match does not keep an object that is there", uri, remedy)
        if etag is None or store.replace(uri, b"3", '"00000000000000000000000000000000"') is not None:
            raise _broken("If-Match does not keep an object that has changed", uri, remedy)
        if store.replace(uri, b"4", etag) is None:
            raise _broken("If-Match refuses an object that has not changed", uri, remedy)
    return findings


def _broken(what: str, uri: str, remedy: str = "Use a server that keeps S3's promises") -> StorageError:
    return StorageError(f"the object store is no S3: {what}", where=uri, remedy=remedy)
