"""What tests against the stub of the API share: a client in a hurry, and a small run."""

from collections.abc import Iterator
from typing import Any

import pytest

from limbeck.compiled import load
from limbeck.kubeflow import Kubeflow, Patience, connect
from limbeck.submit import start
from tests.kfp_stub import Stub, serve
from tests.small_pipeline import SMALL

ARGUMENTS = {"work_uri": "s3://bucket/work", "config": {"seed": 1}}
QUICK = Patience(request=5, start=1, outage=1, first_poll=0.01, last_poll=0.02)
RUN = "/runs/run-1"
TOKEN = "token-of-the-team"


def serve_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    """A stub, without what the environment says of another server."""
    for name in ("KF_PIPELINES_ENDPOINT", "KF_PIPELINES_UI_ENDPOINT", "KFP_EXISTING_TOKEN", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    with serve() as running:
        yield running


def client(stub: Stub, **options: Any) -> Kubeflow:
    """A client of the stub."""
    return connect(host=stub.url, patience=QUICK, **options)


def start_small(kubeflow: Kubeflow, **names: str) -> str:
    """Start the small pipeline; give the run's id."""
    return start(kubeflow, load(SMALL), ARGUMENTS, **{"experiment": "nightly", "name": "today"} | names)
