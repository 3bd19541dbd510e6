"""What many tests share: one real S3 server for the session, and a fresh address in it for each test."""

import os
import signal
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from limbeck import local, seaweed, warm, warm_server
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


@pytest.fixture(scope="session")
def forked_engines() -> Iterator[None]:
    """Engines in processes of their own start as in a local run: forks of one that has imported vLLM."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        (Path(scratch) / "log").open("w") as log,
        warm_server.serving(Path(scratch), log, ()),
    ):
        os.environ[warm.ADDRESS] = str(Path(scratch) / warm_server.SOCKET)
        yield
        del os.environ[warm.ADDRESS]
