"""A proxy before the object store that writes down who asked for what: the proof of what a stage reads.

Each task names itself in its requests (`tasks._task`), so one line is method, path and task.
"""

import http.client
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Access:
    """One request."""

    method: str
    path: str
    task: str


@contextmanager
def audited(endpoint: str) -> Iterator[tuple[str, list[Access]]]:
    """Serve a proxy of an endpoint on loopback; gives its address and the growing list of requests."""
    target, log = urlsplit(endpoint), list[Access]()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        hop_by_hop: ClassVar = {"connection", "transfer-encoding", "content-length"}

        def forward(self) -> None:
            task = re.search(r"app/limbeck-(\w+)", self.headers.get("User-Agent", ""))
            log.append(Access(self.command, self.path, task[1] if task else ""))
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            upstream = http.client.HTTPConnection(target.hostname or "", target.port)
            # The Host header goes through unchanged: the request's signature covers it.
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "expect":
                    upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            content = answer.read()
            self.send_response_only(answer.status)  # the server named itself and its time already
            for name, value in answer.getheaders():
                if name.lower() not in self.hop_by_hop:
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            self.wfile.write(content)
            upstream.close()

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = forward

        def log_message(self, *_: object) -> None:
            """Stay silent: the list is the log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", log
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
