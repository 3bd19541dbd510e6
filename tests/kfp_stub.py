"""A loopback stub of Kubeflow Pipelines' v2beta1 API, as much of it as `kfp` and `limbeck submit` call.

It keeps experiments, pipelines and runs in memory, records every request, plays runs through states it is
told, and fails as it is told. Paths, fields and status codes are those of Kubeflow Pipelines 2.17.
"""

import email
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

API = "/apis/v2beta1"
CREATED = "2026-01-01T00:00:00Z"
Json = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    """Parsed JSON; the text of the file for an upload; None without a body."""


@dataclass
class Fault:
    """What goes wrong with the next requests of a kind."""

    method: str
    path: str
    """A regular expression for the end of the path."""
    status: int | None = None
    """The answer; none drops the connection."""
    times: int = 1
    done_first: bool = False
    """Whether the request is carried out before its answer is lost."""
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b'{"code": 13, "message": "the database is away"}'


@dataclass
class Stub:
    """The server's state; a test reads and writes it."""

    url: str = ""
    token: str = ""
    """The bearer token that requests must bring; empty lets all pass."""
    cookie: str = ""
    """The same for a cookie."""
    states: list[str] = field(default_factory=lambda: ["PENDING", "RUNNING", "SUCCEEDED"])
    """What each look at a run finds, one after the other; the last one stays."""
    state_history: list[str] = field(default_factory=list)
    tasks: list[Json] = field(default_factory=list)
    """`task_details` of every run."""
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    experiments: list[Json] = field(default_factory=list)
    pipelines: list[Json] = field(default_factory=list)
    versions: list[Json] = field(default_factory=list)
    runs: list[Json] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def asked(self, method: str, path: str) -> list[Request]:
        """The requests whose path ends like this regular expression."""
        return [r for r in self.requests if r.method == method and re.search(f"{path}$", r.path)]

    def wait_for(self, method: str, path: str, times: int = 1) -> None:
        """Return when as many such requests have been answered."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.asked(method, path)) >= times, timeout=30)

    def fault(self, request: Request) -> Fault | None:
        """The fault that this request meets, one time less from now on."""
        for fault in self.faults:
            if fault.times and fault.method == request.method and re.search(f"{fault.path}$", request.path):
                fault.times -= 1
                return fault
        return None

    def answer(self, request: Request) -> tuple[int, Json]:
        """Carry a request out."""
        allowed = f"Bearer {self.token}" if self.token else None
        if allowed and request.headers.get("authorization") != allowed:
            return 401, {"code": 16, "message": "Request header error: there is no user identity header."}
        if self.cookie and request.headers.get("cookie") != self.cookie:
            return 401, {"code": 16, "message": "no cookie"}
        for method, pattern, action in ROUTES:
            match = re.fullmatch(API + pattern, request.path)
            if match and method == request.method:
                return action(self, request, *match.groups())
        return 404, {"code": 5, "message": "Not Found"}


def _listed(items: list[Json], request: Request, key: str) -> tuple[int, Json]:
    predicates = json.loads(request.query.get("filter", "{}")).get("predicates", [])
    found = [
        item for item in items
        if all(item[p["key"]] == p["stringValue"] for p in predicates)
        and item.get("experiment_id", "") == request.query.get("experiment_id", item.get("experiment_id", ""))
    ]  # fmt: skip
    return 200, {key: found, "total_size": len(found)} if found else {}


def _kept(items: list[Json], kind: str, **fields: Any) -> tuple[int, Json]:
    items.append({f"{kind}_id": f"{kind}-{len(items) + 1}", "created_at": CREATED} | fields)
    return 200, items[-1]


def _one(items: list[Json], key: str, identifier: str) -> tuple[int, Json]:
    found = [item for item in items if item[key] == identifier]
    return (200, found[0]) if found else (404, {"code": 5, "message": f"{identifier} not found."})


def _healthz(_: Stub, __: Request) -> tuple[int, Json]:
    return 200, {"multi_user": False}


def _list_experiments(stub: Stub, request: Request) -> tuple[int, Json]:
    return _listed(stub.experiments, request, "experiments")


def _create_experiment(stub: Stub, request: Request) -> tuple[int, Json]:
    return _kept(stub.experiments, "experiment", **request.body)


def _list_pipelines(stub: Stub, request: Request) -> tuple[int, Json]:
    return _listed(stub.pipelines, request, "pipelines")


def _upload(stub: Stub, request: Request) -> tuple[int, Json]:
    return _kept(stub.pipelines, "pipeline", display_name=request.query["name"])


def _upload_version(stub: Stub, request: Request) -> tuple[int, Json]:
    fields = {"display_name": request.query["name"], "pipeline_id": request.query["pipelineid"]}
    return _kept(stub.versions, "pipeline_version", **fields)


def _list_runs(stub: Stub, request: Request) -> tuple[int, Json]:
    return _listed(stub.runs, request, "runs")


def _create_run(stub: Stub, request: Request) -> tuple[int, Json]:
    return _kept(stub.runs, "run", **request.body, state="PENDING", looks=0)


def _get_run(stub: Stub, _: Request, run_id: str) -> tuple[int, Json]:
    status, run = _one(stub.runs, "run_id", run_id)
    if status == 200:
        run["state"] = stub.states[min(run["looks"], len(stub.states) - 1)]
        run["looks"] += 1
        run["state_history"] = [{"update_time": CREATED, "state": state} for state in stub.state_history]
        run["run_details"] = {"task_details": stub.tasks}
    return status, run


def _terminate(stub: Stub, _: Request, run_id: str) -> tuple[int, Json]:
    status, run = _one(stub.runs, "run_id", run_id)
    if status == 200:
        # Kubeflow 2.17 ends a terminated run as FAILED; its history tells that it was CANCELING.
        stub.states, stub.state_history, run["looks"] = ["FAILED"], ["RUNNING", "CANCELING", "FAILED"], 0
    return status, {} if status == 200 else run


ROUTES = (
    ("GET", "/healthz", _healthz),
    ("GET", "/experiments", _list_experiments),
    ("POST", "/experiments", _create_experiment),
    ("GET", "/pipelines", _list_pipelines),
    ("POST", "/pipelines/upload", _upload),
    ("POST", "/pipelines/upload_version", _upload_version),
    ("GET", "/runs", _list_runs),
    ("POST", "/runs", _create_run),
    ("GET", "/runs/([^/:]+)", _get_run),
    ("POST", "/runs/([^/:]+):terminate", _terminate),
)


class _Handler(BaseHTTPRequestHandler):
    stub: Stub

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(
            method=self.command,
            path=parts.path,
            query={name: values[0] for name, values in parse_qs(parts.query).items()},
            headers={name.lower(): value for name, value in self.headers.items()},
            body=_parsed(content, self.headers.get("Content-Type", "")),
        )
        with self.stub.changed:
            self.stub.requests.append(request)
            fault = self.stub.fault(request)
            status, answer = 0, Json()
            if fault is None or fault.done_first:
                status, answer = self.stub.answer(request)
            if fault is None:
                self._send(status, json.dumps(answer).encode(), {})
            elif fault.status is None:
                self.close_connection = True
                self.connection.close()
            else:
                self._send(fault.status, fault.content, fault.headers)
            self.stub.changed.notify_all()

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _parsed(content: bytes, kind: str) -> Any:
    if kind.startswith("multipart/"):
        message = email.message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + content)
        return next(part.get_payload(decode=True) for part in message.walk() if part.get_filename())
    return json.loads(content) if content else None


@contextmanager
def serve() -> Iterator[Stub]:
    """A stub on a free port of the loopback, until the block ends."""
    stub = Stub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"stub": stub}))
    server.daemon_threads = True
    stub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
