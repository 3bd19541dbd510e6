"""A proxy on loopback that spoils, by a seed, a share of what passes between a client and its object store.

Bodies of objects arrive changed; answers that are XML do not, because S3 gives no checksum of them: there
only TLS protects.
"""

import http.client
import random
import socket
import ssl
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

FAULTS = ("500", "503", "slow down", "lost answer", "reset", "truncated", "flipped")
"""A lost answer: the server did what was asked, and the client hears of an error."""
REFUSALS = {
    "500": (500, "InternalError"),
    "503": (503, "ServiceUnavailable"),
    "slow down": (503, "SlowDown"),
    "no such upload": (404, "NoSuchUpload"),  # only as planned: a server that has forgotten one
}
PER_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}


class Answer(NamedTuple):
    """What the store said."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class Request(NamedTuple):
    """What the store is asked."""

    method: str
    path: str
    body: bytes
    headers: Message
    """Names in any case."""


PassOn = Callable[[Request, Callable[[], Answer]], Answer | None]
"""Takes a request and what asks the store; gives the answer, or None for a connection that is lost."""


class FaultProxy:
    """What the proxy does next, and what it has done. Its fields may be set at any time."""

    def __init__(self, upstream: str, seed: int, rate: float, faults: Sequence[str]) -> None:
        """See `fault_proxy`."""
        self.upstream = urlsplit(upstream).netloc
        self.endpoint = ""
        self.rate, self.faults = rate, faults
        self.planned: deque[str] = deque()
        """Faults of the next requests, before any by chance; `` is none."""
        self.is_down = threading.Event()
        """While it is set, every connection is reset."""
        self.was_missed = threading.Event()
        """Set when somebody asks meanwhile."""
        self.pass_on: PassOn = lambda _, ask: ask()
        """What stands between a request that was let through and the store."""
        self.seen: Counter[str] = Counter()
        """Requests by method, and faults by name."""
        self.unheard: list[Request] = []
        """What the store has done without the client hearing of it."""
        self._rng, self._lock = random.Random(seed), threading.Lock()  # noqa: S311 - no secrets

    def choose(self, method: str) -> str:
        """The fault of one request, or none."""
        with self._lock:
            fault = ""
            if self.planned:
                fault = self.planned.popleft()
            elif self._rng.random() < self.rate:
                fault = self._rng.choice(self.faults)
            self.seen.update([method, fault] if fault else [method])
            return fault

    def flip(self, data: bytes) -> bytes:
        """The same with one bit changed somewhere."""
        with self._lock:
            place = self._rng.randrange(len(data))
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@contextmanager
def fault_proxy(
    upstream: str,
    seed: int = 0,
    rate: float = 0.0,
    faults: Sequence[str] = FAULTS,
    tls: ssl.SSLContext | None = None,
) -> Iterator[FaultProxy]:
    """Run the proxy while the block runs.

    Args:
        upstream: The object store's address.
        seed: Makes the same faults in the same order of requests.
        rate: The share of requests that are spoilt.
        faults: Which faults happen, all equally often.
        tls: Speak TLS to the client.
    """
    proxy = FaultProxy(upstream, seed, rate, faults)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(proxy))
    server.daemon_threads = True
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    proxy.endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.socket.close()
        thread.join()


def _handler(proxy: FaultProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def forward(self) -> None:
            if proxy.is_down.is_set():
                proxy.was_missed.set()
                self._reset()
                return
            fault = proxy.choose(self.command)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if fault in REFUSALS:
                self._refuse(fault)
                return
            if fault == "flipped" and self.command == "PUT" and body:
                body = proxy.flip(body)
            request = Request(self.command, self.path, body, self.headers)
            answer = proxy.pass_on(request, lambda: self._ask(body))
            if answer is None:
                self._reset()
                return
            status, headers, data = answer
            if fault == "lost answer" or (fault == "reset" and self.command != "GET"):
                proxy.unheard.append(request)
            if fault == "lost answer":
                self._refuse("500")
            elif fault in ("reset", "truncated") and data and self.command == "GET":
                self._answer(status, headers, data[: len(data) // 2])
                self._reset() if fault == "reset" else self._close()
            elif fault == "reset":
                self._reset()
            elif fault == "flipped" and data and self.command == "GET" and self._is_object():
                self._answer(status, headers, proxy.flip(data))
            else:
                self._answer(status, headers, data)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = forward

        def _ask(self, body: bytes) -> Answer:
            """What the store says; the client's Host stays, because its signature covers it."""
            sent = {name: value for name, value in self.headers.items() if name.lower() not in PER_HOP}
            connection = http.client.HTTPConnection(proxy.upstream, timeout=60)
            try:
                connection.request(self.command, self.path, body, sent)
                answer = connection.getresponse()
                data = answer.read()
            except OSError:
                return Answer(502, {"Content-Length": "0"}, b"")
            finally:
                connection.close()
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in PER_HOP}
            if self.command != "HEAD":
                headers["Content-Length"] = str(len(data))
            return Answer(answer.status, headers, data)

        def _is_object(self) -> bool:
            address = urlsplit(self.path)
            asked = parse_qs(address.query, keep_blank_values=True)
            return address.path.count("/") > 1 and not {"list-type", "uploads"} & set(asked)

        def _refuse(self, fault: str) -> None:
            status, code = REFUSALS[fault]
            data = f"<Error><Code>{code}</Code></Error>".encode()
            self._answer(status, {"Content-Length": str(len(data))}, data)

        def _answer(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def _reset(self) -> None:
            """End the connection as a crashed machine's kernel does."""
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._close()

        def _close(self) -> None:
            self.close_connection = True
            self.connection.close()

        def finish(self) -> None:
            try:
                super().finish()
            except OSError:
                return  # reset by us, or by a client that gave up

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                return

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    return Handler
