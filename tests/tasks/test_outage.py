"""A task that starts while the object store is away."""

import contextlib
import os
import threading

import pytest

from limbeck.errors import StorageError
from limbeck.storage import DEADLINE, Store
from limbeck.tasks.artifacts import task
from tests.fault_proxy import fault_proxy

LONGER_THAN_A_FIRST_CONTACT_MAY_TAKE = 12.0


def test_a_task_that_starts_in_an_outage_waits_for_its_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = []
    with fault_proxy(str(store.endpoint)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        proxy.is_down.set()
        back = threading.Timer(LONGER_THAN_A_FIRST_CONTACT_MAY_TAKE, proxy.is_down.clear)
        back.start()
        # An error that leaves a task ends its process.
        with task("prepare"), contextlib.suppress(StorageError):
            answers.append(Store().exists("s3://test/none"))
        back.join()
    assert proxy.was_missed.is_set()
    assert answers == [False]
    assert DEADLINE not in os.environ
