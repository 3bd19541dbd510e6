"""A Kubeflow Model Registry on loopback: the part of its REST API (v1) that a registration uses.

Source: api/openapi/model-registry.yaml of kubeflow/model-registry. It keeps everything in memory, refuses
what lacks a required field or names a parent that is not there; it can be told to fail or to ask for a token.
"""

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

ROOT = "/api/model_registry/v1"
Row = dict[str, Any]


@dataclass
class Registry:
    """What the server holds and has seen."""

    url: str = ""
    token: str = ""
    """Asked for where it is set."""
    models: list[Row] = field(default_factory=list)
    versions: list[Row] = field(default_factory=list)
    artifacts: list[Row] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    """The Authorization header of each request."""
    broken: str = ""
    """A path that answers with 500."""
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def answer(self, method: str, target: str, body: Row) -> tuple[int, Row]:
        """Status and content for one request."""
        parts = urlsplit(target)
        path, query = parts.path.removeprefix(ROOT), {k: v[0] for k, v in parse_qs(parts.query).items()}
        if not parts.path.startswith(ROOT) or (self.broken and path.endswith(self.broken)):
            return (500, {"code": "500", "message": "broken"}) if self.broken else (404, {"code": "404"})
        match method, path.strip("/").split("/"):
            case "GET", ["registered_model"]:
                return self._one(self.models, name=query["name"])
            case "POST", ["registered_models"]:
                return self._add(self.models, body, "name")
            case "GET", ["model_version"]:
                wanted = {"name": query["name"], "registeredModelId": query["parentResourceId"]}
                return self._one(self.versions, **wanted)
            case "POST", ["model_versions"]:
                if body.get("registeredModelId") not in {row["id"] for row in self.models}:
                    return 404, {"code": "404", "message": "no such model"}
                return self._add(self.versions, body, "name", "registeredModelId")
            case "GET", ["model_versions", version, "artifacts"]:
                items = [row for row in self.artifacts if row["parent"] == version]
                found = [{k: v for k, v in row.items() if k != "parent"} for row in items]
                return 200, {"items": found, "size": len(found), "pageSize": 100, "nextPageToken": ""}
            case "POST", ["model_versions", version, "artifacts"]:
                status, made = self._add(self.artifacts, body | {"parent": version}, "uri", "artifactType")
                return status, {k: v for k, v in made.items() if k != "parent"}
        return 405, {"code": "405", "message": target}

    def _one(self, rows: list[Row], **wanted: str) -> tuple[int, Row]:
        found = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
        return (200, found[0]) if found else (404, {"code": "404", "message": "none"})

    def _add(self, rows: list[Row], body: Row, *required: str) -> tuple[int, Row]:
        missing = [name for name in required if not body.get(name)]
        if missing:
            return 400, {"code": "400", "message": f"required: {missing}"}
        rows.append(body | {"id": str(next(self.ids))})
        return 201, rows[-1]


@contextmanager
def serve() -> Iterator[Registry]:
    """Run a registry for a while."""
    registry = Registry()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            said = self.headers.get("Authorization", "")
            registry.tokens.append(said)
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            status, content = registry.answer(self.command, self.path, body)
            if registry.token and said != f"Bearer {registry.token}":
                status, content = 401, {"code": "401", "message": "who are you"}
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
