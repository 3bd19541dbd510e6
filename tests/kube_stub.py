"""A loopback stub of the Kubernetes API, as much of it as the launcher of TrainJobs and `preflight` ask.

It keeps TrainJobs and pods in memory, serves watches and logs as streams, records every request, and fails as
it is told. A test is the controller: it says what becomes of a TrainJob and what its pods print.
"""

import copy
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
NAMESPACE = "team"
GROUP = "/apis/trainer.kubeflow.org/v1alpha1"
JOBS = f"{GROUP}/namespaces/{NAMESPACE}/trainjobs"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
WATCH = rf"{JOBS}\?.*watch=True"
LIST = rf"{JOBS}\?(?!.*watch=True)"
MERGE_ONLY = "the body of the request was in an unknown format"


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, str]
    body: Any

    @property
    def address(self) -> str:
        """Path and query."""
        return self.path + ("?" + "&".join(f"{k}={v}" for k, v in self.query.items()) if self.query else "")


@dataclass
class Fault:
    """What goes wrong with the next requests of a kind."""

    method: str
    address: str
    """A regular expression for the beginning of path and query."""
    status: int | None = None
    """The answer; none drops the connection."""
    times: int = 1
    done_first: bool = False
    """Whether the request is carried out before its answer is lost."""
    after: int | None = None
    """Of a stream: so many events or lines pass first; the connection then ends in the middle of the next."""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Stub:
    """The server's state; a test reads and writes it."""

    url: str = ""
    token: str = ""
    """The bearer token that requests must bring; empty lets all pass."""
    served: list[str] | None = field(default_factory=lambda: ["trainjobs", "trainingruntimes"])
    """What the group of Trainer serves; None: there is no such group."""
    runtimes: list[str] = field(default_factory=lambda: ["limbeck"])
    allowed: Callable[[Json], bool] = lambda attributes: True
    """What SelfSubjectAccessReviews grant."""
    jobs: dict[str, Json] = field(default_factory=dict)
    pods: dict[str, Json] = field(default_factory=dict)
    logs: dict[str, list[str]] = field(default_factory=dict)
    """Lines with their times, by pod."""
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    version: int = 100
    events: list[tuple[int, str, Json]] = field(default_factory=list)
    oldest: int = 0
    """A watch from before this version has expired."""
    changed: threading.Condition = field(default_factory=threading.Condition)

    # What a test does in the place of Trainer's controller.
    def update(
        self,
        name: str,
        *,
        suspend: bool | None = None,
        ready: int | None = None,
        complete: str = "",
        failed: str = "",
    ) -> None:
        """Change what is said of a TrainJob; it ends with a message."""
        with self.changed:
            job = self.jobs[name]
            if suspend is not None:
                job["spec"]["suspend"] = suspend
            status = job.setdefault("status", {})
            if ready is not None:
                status["jobsStatus"] = [{"name": "node", "ready": ready, "succeeded": 0}]
            for kind, text in (("Complete", complete), ("Failed", failed)):
                if text:
                    condition = {"type": kind, "status": "True", "reason": "JobSet", "message": text}
                    status.setdefault("conditions", []).append(condition)
            self._happened("MODIFIED", job)

    def remove(self, name: str) -> None:
        """Delete a TrainJob for good."""
        with self.changed:
            self._happened("DELETED", self.jobs.pop(name))

    def pod(
        self, job: str, rank: int, *, phase: str = "Running", exit_code: int | None = None, **end: str
    ) -> str:
        """Add or change a pod of a TrainJob; its name."""
        with self.changed:
            name = f"{job}-node-0-{rank}"
            status: Json = {"phase": phase}
            if exit_code is not None:
                terminated = {"exitCode": exit_code, "reason": "Error", "finishedAt": "2026-01-01T00:00:00Z"}
                status["containerStatuses"] = [
                    {
                        "name": "node", "image": "i", "imageID": "", "ready": False, "restartCount": 0,
                        "state": {"terminated": terminated | end},
                    }
                ]  # fmt: skip
            self.pods[name] = {
                "metadata": {
                    "name": name,
                    "uid": f"uid-{name}",
                    "creationTimestamp": "2026-01-01T00:00:00Z",
                    "labels": {
                        "jobset.sigs.k8s.io/jobset-name": job,
                        "batch.kubernetes.io/job-completion-index": str(rank),
                    },
                },
                "spec": {"containers": [{"name": "node", "image": "i"}]},
                "status": status,
            }
            self.changed.notify_all()
            return name

    def log(self, pod: str, *lines: str) -> None:
        """Let a pod print; each line a millisecond after the one before, in Go's way to write times."""
        with self.changed:
            known = self.logs.setdefault(pod, [])
            for line in lines:
                fraction = f"{len(known) + 1:03d}".rstrip("0")
                known.append(f"2026-01-01T00:00:00.{fraction}Z {line}")
            self.changed.notify_all()

    def asked(self, method: str, address: str) -> list[Request]:
        """The requests whose path and query begin like this regular expression."""
        return [r for r in self.requests if r.method == method and re.match(address, r.address)]

    def wait_for(self, method: str, address: str, times: int = 1) -> None:
        """Return when as many such requests have come."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.asked(method, address)) >= times, timeout=30)

    def wait_for_faults(self) -> None:
        """Return when every fault has been met as often as it should."""
        with self.changed:
            assert self.changed.wait_for(lambda: not any(fault.times for fault in self.faults), timeout=30)

    # What the API does.
    def _happened(self, kind: str, job: Json) -> None:
        self.version += 1
        job["metadata"]["resourceVersion"] = str(self.version)
        self.events.append((self.version, kind, copy.deepcopy(job)))
        self.changed.notify_all()

    def fault(self, request: Request) -> Fault | None:
        """The fault that this request meets, one time less from now on."""
        for fault in self.faults:
            if fault.times and fault.method == request.method and re.match(fault.address, request.address):
                fault.times -= 1
                return fault
        return None

    def answer(self, request: Request) -> tuple[int, Json | str]:
        """Carry a request out that is no stream."""
        method, path = request.method, request.path
        if path == GROUP:
            if self.served is None:
                return 404, _status(404, "not found")
            return 200, {"resources": [{"name": name} for name in self.served]}
        if path.endswith("/selfsubjectaccessreviews"):
            return 201, {"status": {"allowed": self.allowed(request.body["spec"]["resourceAttributes"])}}
        if match := re.fullmatch(rf"{GROUP}/namespaces/{NAMESPACE}/trainingruntimes/(.+)", path):
            return (200, {}) if match[1] in self.runtimes else (404, _status(404, "not found"))
        if match := re.fullmatch(f"{PODS}/([^/]+)/log", path):
            return 200, "".join(f"{line}\n" for line in self.logs.get(match[1], []))
        if match := re.fullmatch(f"{PODS}/([^/]+)", path):
            pod = self.pods.get(match[1])
            return (200, pod) if pod else (404, _status(404, "no such pod"))
        if path == PODS:
            return 200, {"items": [pod for pod in self.pods.values() if _selected(pod, request)]}
        return self._job(method, path.removeprefix(JOBS).lstrip("/"), request)

    def _job(self, method: str, name: str, request: Request) -> tuple[int, Json]:
        """A TrainJob is created, listed, patched, deleted."""
        if method == "POST":
            name = request.body["metadata"]["name"]
            if name in self.jobs:
                return 409, _status(409, f'trainjobs "{name}" already exists')
            self.jobs[name] = copy.deepcopy(request.body)
            self._happened("ADDED", self.jobs[name])
            return 201, self.jobs[name]
        if not name:
            items = [job for job in self.jobs.values() if _selected(job, request)]
            return 200, {"items": items, "metadata": {"resourceVersion": str(self.version)}}
        if name not in self.jobs:
            return 404, _status(404, f'trainjobs "{name}" not found')
        if method == "DELETE":
            job = self.jobs.pop(name)
            self._happened("DELETED", job)
            return 200, job
        if method == "PATCH":
            if not isinstance(request.body, list):
                return 400, _status(400, MERGE_ONLY)
            for step in request.body:
                self.jobs[name]["metadata"][step["path"].removeprefix("/metadata/")] = step["value"]
            self._happened("MODIFIED", self.jobs[name])
        return 200, self.jobs[name]

    def watch(self, request: Request) -> Iterator[str | None]:
        """Events as lines, None now and then while there are none."""
        seen = int(request.query["resourceVersion"])
        if seen < self.oldest:
            gone = _status(410, f"too old resource version: {seen} ({self.oldest})")
            yield json.dumps({"type": "ERROR", "object": gone}) + "\n"
            return
        ends = time.monotonic() + float(request.query["timeoutSeconds"])
        while time.monotonic() < ends:
            with self.changed:
                new = [event for event in self.events if event[0] > seen]
                if not new:
                    self.changed.wait(0.05)
            for version, kind, job in new:
                seen = version
                if _selected(job, request):
                    yield json.dumps({"type": kind, "object": job}) + "\n"
            yield None

    def follow(self, pod: str, request: Request) -> Iterator[str | None]:
        """The log of a pod as it grows, until its container has ended."""
        tail = request.query.get("tailLines")
        sent = max(0, len(self.logs.get(pod, [])) - int(tail)) if tail else 0
        while True:
            with self.changed:
                new = self.logs.get(pod, [])[sent:]
                over = self.pods.get(pod, {}).get("status", {}).get("phase") != "Running"
                if not new and not over:
                    self.changed.wait(0.05)
            for line in new:
                sent += 1
                yield f"{line}\n"
            yield None
            if over and not new:
                return


def _status(code: int, text: str) -> Json:
    return {"kind": "Status", "code": code, "reason": "Reason", "message": text}


def _selected(item: Json, request: Request) -> bool:
    """By the selectors of a list or watch."""
    labels = item["metadata"].get("labels", {})
    wanted = dict(part.split("=") for part in request.query.get("labelSelector", "").split(",") if part)
    name = request.query.get("fieldSelector", "").removeprefix("metadata.name=")
    return all(labels.get(k) == v for k, v in wanted.items()) and name in ("", item["metadata"]["name"])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stub: Stub

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PATCH = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        request = Request(self.command, parts.path, query, json.loads(content) if content else None)
        with self.stub.changed:
            self.stub.requests.append(request)
            fault = self.stub.fault(request)
            self.stub.changed.notify_all()
        stream = self._stream(request)
        if stream and (fault is None or fault.after is not None):
            self._send_stream(stream, fault)
        elif fault is None or fault.done_first:
            with self.stub.changed:
                status, answer = self._authorized(request)
            if fault is None:
                self._send(status, answer, {})
            else:
                self._fail(fault)
        else:
            self._fail(fault)

    def _authorized(self, request: Request) -> tuple[int, Json | str]:
        scheme, _, token = (self.headers["Authorization"] or "").partition(" ")
        if self.stub.token and (scheme.lower(), token) != ("bearer", self.stub.token):
            return 401, _status(401, "Unauthorized")
        return self.stub.answer(request)

    def _stream(self, request: Request) -> Iterator[str | None] | None:
        if request.query.get("watch") == "True":
            return self.stub.watch(request)
        log = re.fullmatch(f"{PODS}/([^/]+)/log", request.path)
        return self.stub.follow(log[1], request) if log and request.query.get("follow") == "True" else None

    def _send_stream(self, lines: Iterator[str | None], fault: Fault | None) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        passed = 0
        with suppress(OSError):
            for line in lines:
                cut = fault is not None and passed == fault.after
                if line is None:
                    continue
                content = (line[: len(line) // 2] if cut else line).encode()
                self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
                passed += 1
                if cut:
                    self._drop()
                    return
            self.wfile.write(b"0\r\n\r\n")

    def _fail(self, fault: Fault) -> None:
        if fault.status is None:
            self._drop()
        else:
            self._send(fault.status, _status(fault.status, "not now"), fault.headers)

    def _drop(self) -> None:
        self.close_connection = True
        self.connection.close()

    def _send(self, status: int, answer: Json | str, headers: dict[str, str]) -> None:
        text = answer if isinstance(answer, str) else json.dumps(answer)
        self.send_response(status)
        kind = "text/plain" if isinstance(answer, str) else "application/json"
        for name, value in ({"Content-Type": kind} | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())


@contextmanager
def serve(tls: ssl.SSLContext | None = None) -> Iterator[Stub]:
    """A stub on a free port of the loopback, until the block ends."""
    stub = Stub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"stub": stub}))
    server.daemon_threads = True
    server.block_on_close = False
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    stub.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
