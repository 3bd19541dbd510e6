"""A small hub of data sets on loopback: what `huggingface_hub` and `datasets` ask one for, and no more.

It speaks revision info, tree, paths-info and resolve with the headers of the real one. Commits are made of
what was pushed, so an old one can still be asked for.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


class Hub:
    """The data sets of one hub, and what was asked of it."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.commits: dict[tuple[str, str], dict[str, bytes]] = {}
        """Files by data set and commit."""
        self.branches: dict[tuple[str, str], str] = {}
        self.private: set[str] = set()
        """Data sets that ask for a token."""
        self.requests: list[str] = []
        self.tokens: set[str] = set()

    def push(self, repo: str, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Put files on a branch; gives the commit."""
        text = json.dumps({name: hashlib.sha1(data).hexdigest() for name, data in files.items()})  # noqa: S324
        commit = hashlib.sha1(f"{repo} {text}".encode()).hexdigest()  # noqa: S324 - as git names things
        self.commits[repo, commit] = dict(files)
        self.branches[repo, branch] = commit
        return commit

    def files(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit of a revision and its files."""
        commit = self.branches.get((repo, revision), revision)
        found = self.commits.get((repo, commit))
        return None if found is None else (commit, found)


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub that answers while the block runs."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_HEAD(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            hub.requests.append(f"{self.command} {self.path}")
            hub.tokens.add(self.headers.get("Authorization", ""))
            parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
            if parts[0] == "api":
                self._api(parts[2:], body)
            else:
                self._file(parts[1:])

        def _api(self, parts: list[str], body: bytes) -> None:
            repo, (what, revision, *path) = (
                "/".join(parts[:2]),
                [*parts[2:], "revision", "main"][:2] + parts[4:],
            )
            found = self._found(repo, revision)
            if found is None:
                return
            commit, files = found
            if what == "revision":
                siblings = [{"rfilename": name} for name in files]
                self._json({"id": repo, "sha": commit, "siblings": siblings, "tags": [], "private": False})
            elif what == "tree":
                self._json(_tree(files, "/".join(path), recursive="recursive=true" in self.path.lower()))
            else:
                asked = parse_qs(body.decode()).get("paths", [])
                entries = _tree(files, "", recursive=True)
                self._json([entry for entry in entries if entry["path"] in asked])

        def _file(self, parts: list[str]) -> None:
            repo, revision, name = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
            found = self._found(repo, revision)
            if found is None:
                return
            commit, files = found
            if name not in files:
                self._refuse(404, "EntryNotFound", commit)
                return
            data = files[name]
            self._send(200, data, {"X-Repo-Commit": commit, "ETag": f'"{_blob(data)}"'})

        def _found(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
            if not any(known == repo for known, _ in hub.commits):
                self._refuse(404, "RepoNotFound")
            elif repo in hub.private and not self.headers.get("Authorization"):
                self._refuse(401, "GatedRepo")
            elif hub.files(repo, revision) is None:
                self._refuse(404, "RevisionNotFound")
            else:
                return hub.files(repo, revision)
            return None

        def _json(self, value: object) -> None:
            self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _refuse(self, status: int, code: str, commit: str = "") -> None:
            headers = {"X-Error-Code": code, "X-Error-Message": code}
            self._send(status, b"", headers | ({"X-Repo-Commit": commit} if commit else {}))

        def _send(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _tree(files: Mapping[str, bytes], folder: str, *, recursive: bool) -> list[dict[str, object]]:
    """The entries below a folder."""
    base = f"{folder}/" if folder else ""
    entries: dict[str, dict[str, object]] = {}
    for name, data in files.items():
        if not name.startswith(base):
            continue
        *folders, _ = name.removeprefix(base).split("/")
        for end in range(1, len(folders) + 1):
            path = base + "/".join(folders[:end])
            if recursive or end == 1:
                entries[path] = {"type": "directory", "path": path, "oid": _blob(path.encode()), "size": 0}
        if recursive or not folders:
            entries[name] = {"type": "file", "path": name, "oid": _blob(data), "size": len(data)}
    return list(entries.values())


def _blob(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()  # noqa: S324 - as git names things
