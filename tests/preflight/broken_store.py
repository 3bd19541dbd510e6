"""A small S3 in memory that takes any key and breaks one promise, which no real server does on demand."""

import re
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.utils import formatdate
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import time
from urllib.parse import parse_qs, urlsplit

FAULTS = (
    "none",
    "read only",
    "no multipart",
    "no abort",
    "no deletion",
    "ignores ranges",
    "ignores conditions",
    "refuses conditions",
    "lists late",
    "other bytes",
)


def _handler(fault: str, seconds_ahead: float) -> type[BaseHTTPRequestHandler]:
    objects: dict[str, bytes] = {}
    meta: dict[str, str] = {}
    parts: dict[str, dict[int, bytes]] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # else boto3 waits a second for `100 Continue` before each body

        def do_PUT(self) -> None:
            key, query = self._place()
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("x-amz-content-sha256", "").startswith("STREAMING"):
                body = _unchunked(body)
            if fault == "read only":
                self._refuse(403, "AccessDenied")
            elif "uploadId" in query:
                parts[query["uploadId"][0]][int(query["partNumber"][0])] = body
                self._answer(200, b"", {"ETag": '"part"'})
            elif self._condition_fails(key, objects.get(key)):
                self._refuse(412, "PreconditionFailed")
            elif fault == "refuses conditions" and (
                self.headers.get("If-Match") or self.headers.get("If-None-Match")
            ):
                self._refuse(501, "NotImplemented")
            else:
                objects[key], meta[key] = body, self.headers.get("x-amz-meta-sha256", "")
                self._answer(200, b"", {"ETag": _etag(body)})

        def do_POST(self) -> None:
            key, query = self._place()
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if "delete" in query:
                self._delete(re.findall(b"<Key>([^<]*)</Key>", body))
            elif fault == "no multipart":
                self._refuse(501, "NotImplemented")
            elif "uploads" in query:
                upload = uuid.uuid4().hex
                parts[upload] = {}
                meta[key] = self.headers.get("x-amz-meta-sha256", "")
                self._answer(200, f"<R><UploadId>{upload}</UploadId></R>".encode())
            else:
                made = parts.pop(query["uploadId"][0])
                objects[key] = b"".join(made[number] for number in sorted(made))
                self._answer(200, b"<R><ETag>x</ETag></R>")

        def do_GET(self) -> None:
            key, query = self._place()
            if "list-type" in query:
                prefix = query.get("prefix", [""])[0]
                found = [] if fault == "lists late" else [name for name in objects if name.startswith(prefix)]
                items = "".join(
                    f"<Contents><Key>{name}</Key><Size>{len(objects[name])}</Size>"
                    "<LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"
                    for name in sorted(found)
                )
                self._answer(200, f"<R><IsTruncated>false</IsTruncated>{items}</R>".encode())
            elif key not in objects:
                self._refuse(404, "NoSuchKey")
            else:
                self._give(key)

        def do_HEAD(self) -> None:
            key, _ = self._place()
            if key in objects:
                self._answer(200, objects[key], {"x-amz-meta-sha256": meta.get(key, "")}, body=False)
            else:
                self._answer(404, b"", body=False)

        def do_DELETE(self) -> None:
            """Take back an upload."""
            if fault == "no abort":
                self._refuse(403, "AccessDenied")
            else:
                self._answer(204, b"")

        def _delete(self, keys: Sequence[bytes]) -> None:
            if fault == "no deletion":
                self._refuse(403, "AccessDenied")
                return
            for key in keys:
                objects.pop(key.decode(), None)
            self._answer(200, b"<R></R>")

        def _give(self, key: str) -> None:
            data = objects[key][::-1] if fault == "other bytes" else objects[key]
            asked = self.headers.get("Range")
            if asked and fault != "ignores ranges":
                first, last = asked.removeprefix("bytes=").split("-")
                part = data[int(first) : int(last or len(data)) + 1]
                span = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
                self._answer(206, part, {"ETag": _etag(data), "Content-Range": span})
            else:
                self._answer(200, data, {"ETag": _etag(data), "x-amz-meta-sha256": meta.get(key, "")})

        def _condition_fails(self, key: str, there: bytes | None) -> bool:
            if fault == "ignores conditions":
                return False
            if self.headers.get("If-None-Match") == "*":
                return there is not None
            wanted = self.headers.get("If-Match")
            return wanted is not None and (there is None or wanted != _etag(there))

        def _place(self) -> tuple[str, dict[str, list[str]]]:
            url = urlsplit(self.path)
            return url.path.split("/", 2)[-1], parse_qs(url.query, keep_blank_values=True)

        def _refuse(self, status: int, code: str) -> None:
            self._answer(status, f"<Error><Code>{code}</Code></Error>".encode())

        def _answer(
            self, status: int, data: bytes, headers: dict[str, str] | None = None, *, body: bool = True
        ) -> None:
            self.send_response_only(status)
            self.send_header("Date", formatdate(time() + seconds_ahead, usegmt=True))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    return Handler


def _etag(data: bytes) -> str:
    return f'"{md5(data, usedforsecurity=False).hexdigest()}"'


def _unchunked(body: bytes) -> bytes:
    """The content of aws-chunked encoding."""
    content = b""
    while body:
        head, _, rest = body.partition(b"\r\n")
        size = int(head.split(b";")[0], 16)
        if size == 0:
            break
        content, body = content + rest[:size], rest[size + 2 :]
    return content


@contextmanager
def broken_store(fault: str = "none", seconds_ahead: float = 0.0) -> Iterator[str]:
    """Serve it on a free loopback port; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(fault, seconds_ahead))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
