"""Each thing that can be wrong with an object store has its line; the real server has none."""

from datetime import UTC, datetime, timedelta

import pytest

from limbeck.preflight.probes import ProbedStore
from limbeck.preflight.store import SECRET_KEYS, clock, open_store, probe
from limbeck.storage import Store
from tests.preflight.broken_store import broken_store
from tests.preflight.conftest import lines


def test_the_real_server_keeps_every_promise_and_nothing_stays_in_it(store: Store, work_uri: str) -> None:
    opened = open_store(work_uri)
    assert opened.findings == []
    assert opened.client is not None
    assert probe(opened.client, work_uri) == []
    assert store.sizes(work_uri) == {}


def test_a_wrong_secret_is_one_finding_and_ends_all_requests(
    store: Store, work_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    opened = open_store(work_uri)
    assert opened.client is None
    (line,) = lines(opened.findings)
    assert "refuses these credentials" in line
    assert "wrong-secret" not in line


def test_a_missing_bucket_is_found_and_other_buckets_can_be_looked_at(store: Store) -> None:
    opened = open_store("s3://absent-bucket/work")
    assert (opened.client is not None, opened.has_bucket) == (True, False)
    (line,) = lines(opened.findings)
    assert line.startswith("error: no such bucket in s3://absent-bucket/work")


def test_an_endpoint_where_nobody_listens_is_one_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    opened = open_store("s3://b/work")
    assert opened.client is None
    assert "the object store does not answer" in lines(opened.findings)[0]


def test_keys_that_the_secret_lacks_are_all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    for name in (*SECRET_KEYS, "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    found = lines(open_store("s3://b/work").findings)
    assert len(found) == len(SECRET_KEYS)
    for name, line in zip(SECRET_KEYS, found, strict=True):
        assert f"no {name} in key {name} of the secret that the parameter `s3_secret` names" in line
        assert "manifests/examples/s3-secret.yaml" in line


BAD_VARIABLES = {
    "a line end": ("AWS_SECRET_ACCESS_KEY", "geheim\n", "white space around AWS_SECRET_ACCESS_KEY"),
    "a password": ("AWS_ENDPOINT_URL", "https://me:geheim@host", "a password in AWS_ENDPOINT_URL"),
    "a password without a scheme": (
        "AWS_ENDPOINT_URL",
        "me:geheim@minio:9000",
        "a password in AWS_ENDPOINT_URL",
    ),
    "a password after one slash": (
        "AWS_ENDPOINT_URL",
        "http:/me:geheim@host",
        "a password in AWS_ENDPOINT_URL",
    ),
    "a password in a broken address": (
        "AWS_ENDPOINT_URL",
        "http://me:geheim@[::1",
        "a password in AWS_ENDPOINT",
    ),
    "a broken address": ("AWS_ENDPOINT_URL", "http://[::1/geheim", "AWS_ENDPOINT_URL is no address"),
    "no address": ("AWS_ENDPOINT_URL", "geheim:9000", "AWS_ENDPOINT_URL is no address"),
}


@pytest.mark.parametrize(("name", "value", "message"), BAD_VARIABLES.values(), ids=BAD_VARIABLES)
def test_a_bad_variable_is_named_and_its_value_is_not_repeated(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    opened = open_store("s3://b/work")
    assert opened.client is None
    (line,) = lines(opened.findings)
    assert message in line
    assert "geheim" not in line


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Any key does for the store in memory."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    return monkeypatch


BROKEN = {
    "none": [],
    "read only": ["error: the object store refuses these credentials"],
    "other bytes": ["error: corrupt object", "error: corrupt object"],
    "lists late": ["error: the object store is no S3: a new object is missing from the listing"],
    "ignores ranges": ["error: the object store ignores ranges", "error: corrupt object"],
    "no multipart": ["error: the object store failed", "error: the object store failed"],
    "no abort": ["error: the object store refuses these credentials"],
    "ignores conditions": ["error: the object store is no S3: If-None-Match does not keep an object"],
    "refuses conditions": ["error: the object store failed"],
    "no deletion": ["warning: the object store refuses these credentials"],
}


@pytest.mark.parametrize(("fault", "messages"), BROKEN.items(), ids=BROKEN)
def test_each_broken_promise_has_its_line(fault: str, messages: list[str], keys: pytest.MonkeyPatch) -> None:
    with broken_store(fault) as endpoint:
        keys.setenv("AWS_ENDPOINT_URL", endpoint)
        found = lines(probe(ProbedStore(), "s3://b/work"))
    assert len(found) == len(messages)
    for line, message in zip(found, messages, strict=True):
        assert line.startswith(message)
        assert "s3://b/work/preflight/" in line


NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
CLOCKS = {
    "in time": (30, []),
    "a minute behind": (
        90,
        ["warning: the clocks of this node and the object store differ: expected less than"],
    ),
    "minutes ahead": (-301, ["error: the clocks of this node and the object store differ"]),
}


@pytest.mark.parametrize(("seconds", "messages"), CLOCKS.values(), ids=CLOCKS)
def test_clocks_are_compared(seconds: int, messages: list[str]) -> None:
    found = lines(clock(NOW + timedelta(seconds=seconds), NOW))
    assert len(found) == len(messages)
    for line, message in zip(found, messages, strict=True):
        assert line.startswith(message)
        assert f"{abs(seconds)} s {'behind' if seconds > 0 else 'ahead of'} the store" in line


def test_the_servers_clock_is_read_from_its_first_answer(keys: pytest.MonkeyPatch) -> None:
    with broken_store(seconds_ahead=3600) as endpoint:
        keys.setenv("AWS_ENDPOINT_URL", endpoint)
        opened = open_store("s3://b/work")
    assert opened.client is not None
    assert lines(opened.findings)[0].startswith("error: the clocks of this node and the object store differ")


def test_a_server_without_a_clock_is_not_blamed() -> None:
    assert clock(None, NOW) == []
