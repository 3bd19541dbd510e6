"""Clients that reach the server through a proxy that can spoil what passes."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from limbeck.storage import Store
from tests.fault_proxy import FAULTS, FaultProxy, fault_proxy

Through = Callable[..., tuple[Store, FaultProxy]]


@pytest.fixture
def through(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Through]:
    """Starts a proxy before the server, and gives a client that knows only the proxy."""
    with ExitStack() as stack:

        def start(
            seed: int = 0, rate: float = 0.0, faults: tuple[str, ...] = FAULTS, deadline_seconds: float = 60
        ) -> tuple[Store, FaultProxy]:
            proxy = stack.enter_context(fault_proxy(str(store.endpoint), seed, rate, faults))
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
            return Store(deadline_seconds), proxy

        yield start
