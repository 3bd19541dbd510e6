"""Clients that reach the server through a proxy that can spoil what passes, or a server of a test's own."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from limbeck.storage import Store
from tests.fault_proxy import FAULTS, FaultProxy, fault_proxy

Through = Callable[..., tuple[Store, FaultProxy]]
Against = Callable[[type[BaseHTTPRequestHandler]], Store]


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


@pytest.fixture
def against(monkeypatch: pytest.MonkeyPatch) -> Iterator[Against]:
    """Starts a server that answers as a test wants, and gives a client of it."""
    servers = []

    def start(handler: type[BaseHTTPRequestHandler]) -> Store:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        return Store(deadline_seconds=2)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
