"""An S3 server that lists whatever keys it is given, as no honest server would, and serves `x` for each."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote, urlsplit


@dataclass
class Listing:
    """What the server says next, and what it was asked."""

    endpoint: str = ""
    keys: list[str] = field(default_factory=list)
    """What every listing holds, whatever prefix is asked for."""
    asked: list[str] = field(default_factory=list)
    """Keys that were read or described."""


@contextmanager
def listing() -> Iterator[Listing]:
    """Serve buckets of any name on loopback."""
    shared = Listing()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            address = urlsplit(self.path)
            body = b"x"
            if "list-type=2" in address.query:
                body = _listed(shared.keys)
            else:
                shared.asked.append(unquote(address.path))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("x-amz-meta-rows", "many")  # others may mean something else by it
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_GET = do_HEAD = answer

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    shared.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield shared
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _listed(keys: Sequence[str]) -> bytes:
    """An answer; keys are URL-encoded, as boto3 asks for, so that even NUL can be sent."""
    entries = "".join(
        f"<Contents><Key>{quote(key)}</Key><Size>1</Size>"
        "<LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"
        for key in keys
    )
    return f"<ListBucketResult><EncodingType>url</EncodingType>{entries}</ListBucketResult>".encode()
