"""A loopback stub of a server that speaks OpenAI's API, as much of it as Limbeck asks.

It answers by a function, records every request, and fails as it is told.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "black-box-2026-01-01"
Json = dict[str, Any]


@dataclass
class Fault:
    """What goes wrong with one request."""

    status: int | None = None
    """The answer's; None drops the connection."""
    headers: dict[str, str] = field(default_factory=dict)
    content: Json | bytes = field(default_factory=lambda: {"error": {"message": "out of order"}})
    after_seconds: float = 0.0


@dataclass
class Stub:
    """The server's state; a test reads and writes it."""

    url: str = ""
    key: str = ""
    """The bearer token that requests must bring; empty lets all pass."""
    answer: Callable[[str, Json], str] = lambda prompt, body: f"{prompt} = {body.get('seed', 0) % 7}"
    """Text by prompt and body."""
    top: list[tuple[str, float]] | None = None
    """The first token's likeliest ones, where they are asked for; None offers no log-probabilities."""
    finish_reason: str = "stop"
    counts: bool = True
    """Whether it tells how many tokens there were: one a character."""
    models: list[str] = field(default_factory=lambda: [MODEL])
    list_fault: Fault | None = None
    """What goes wrong with the list of models each time."""
    faults: list[Fault] = field(default_factory=list)
    """Of the next requests, in order."""
    refuses: Callable[[str], Fault | None] = lambda prompt: None
    """What goes wrong with a prompt each time."""
    bodies: list[Json] = field(default_factory=list)
    """Of all completions that were asked for."""
    answered: int = 0
    open: int = 0
    most_open: int = 0


@contextmanager
def serve() -> Iterator[Stub]:
    """Run the stub; its URL ends in /v1."""
    stub, lock = Stub(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Nothing on the screen."""

        def do_GET(self) -> None:
            """The list of models."""
            if stub.list_fault:
                self._say(stub.list_fault.status or 500, stub.list_fault.content, stub.list_fault.headers)
            elif self._lets_pass():
                self._say(200, {"object": "list", "data": [{"id": name} for name in stub.models]})

        def do_POST(self) -> None:
            """A completion, or what goes wrong with it."""
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = body["messages"][-1]["content"]
            with lock:
                stub.bodies.append(body)
                fault = stub.faults.pop(0) if stub.faults else stub.refuses(prompt)
                stub.open += 1
                stub.most_open = max(stub.most_open, stub.open)
            try:
                self._complete(body, prompt, fault)
            finally:
                with lock:
                    stub.open -= 1

        def _complete(self, body: Json, prompt: str, fault: Fault | None) -> None:
            if fault:
                time.sleep(fault.after_seconds)
                if fault.status is None:
                    self.close_connection = True
                    return
                self._say(fault.status, fault.content, fault.headers)
                return
            if not self._lets_pass():
                return
            if body["model"] not in stub.models:
                self._say(404, {"error": {"message": f"no model {body['model']}", "code": "model_not_found"}})
                return
            text = stub.answer(prompt, body)
            choice: Json = {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": stub.finish_reason,
                "logprobs": None,
            }
            if body.get("logprobs") and stub.top is not None:
                top = [{"token": token, "logprob": logprob} for token, logprob in stub.top]
                place = {"token": text, "logprob": -0.5, "top_logprobs": top[: body.get("top_logprobs", 0)]}
                choice["logprobs"] = {"content": [place, {"token": "", "logprob": -0.25, "top_logprobs": []}]}
            usage = {"prompt_tokens": len(prompt), "completion_tokens": len(text)}
            reply = {"object": "chat.completion", "model": body["model"], "choices": [choice]}
            self._say(200, reply | ({"usage": usage} if stub.counts else {}))
            with lock:
                stub.answered += 1

        def _lets_pass(self) -> bool:
            if stub.key and self.headers.get("Authorization") != f"Bearer {stub.key}":
                sent = self.headers.get("Authorization")
                self._say(401, {"error": {"message": f"Incorrect API key provided: {sent}"}})
                return False
            return True

        def _say(self, status: int, content: Json | bytes, headers: dict[str, str] | None = None) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client may go at any time."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
