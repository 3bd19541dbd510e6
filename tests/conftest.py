"""What many tests share: one real S3 server for the session, and a fresh address in it for each test."""

import os
import signal
import uuid
from collections.abc import Iterator

import pytest

from limbeck import local, seaweed
from limbeck.storage import Store

# A session started in the background ignores Ctrl-C, and so would the runs that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Engines in this process run under the variables that stages run under.
os.environ.update(local.environment())


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A client of a real embedded server; the AWS_* variables of the session point at it too."""
    with seaweed.serve(tmp_path_factory.mktemp("seaweed")) as client:
        client.make_bucket("s3://test")
        yield client


@pytest.fixture
def work_uri(store: Store) -> str:
    """An address that no other test uses."""
    return f"s3://test/{uuid.uuid4().hex[:12]}"
