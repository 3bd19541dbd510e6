"""Headless Chromium, watched through its DevTools protocol: what a page asks for, runs and shows."""

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

PATIENCE_SECONDS = 60.0
PAGE_SECONDS = 10
"""How long a page is watched after it has loaded, by its own clock, which is turned forward at once."""
FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-features=IsolateSandboxedIframes",  # else frames have a process, and a clock, of their own
    "--remote-debugging-port=0",
)
# All elements with their attributes, and the text that a person sees, folded parts unfolded.
LOOK = """(() => {
  document.querySelectorAll('details').forEach(item => { item.open = true; });
  const elements = [...document.querySelectorAll('*')].map(
    item => [item.localName, Object.fromEntries([...item.attributes].map(a => [a.name, a.value]))]);
  return {text: document.documentElement?.innerText ?? '', title: document.title, elements};
})()"""


@dataclass(frozen=True)
class Visit:
    """One page, as the browser had it."""

    requests: list[str]
    """Every address that it asked for but its own, in any frame."""
    scripts: list[str]
    """Every script that was compiled to run, in any frame, by its address or its first words."""
    dialogs: list[str]
    """Messages of alert() and its like."""
    blocked: list[str]
    """What a content security policy had to stop."""
    text: str
    title: str
    elements: list[tuple[str, dict[str, str]]]
    """Name and attributes of each, as parsed."""


class Chromium:
    """A running browser."""

    def __init__(self, connection: ClientConnection) -> None:
        """Take a connection to its DevTools."""
        self._connection = connection
        self._number = 0
        self._events: list[dict[str, Any]] = []

    def visit(self, path: Path) -> Visit:
        """Open a local file in a page of its own, let its clock run on, and look at it."""
        address = path.resolve().as_uri()
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._events.clear()
        for domain in ("Page", "Network", "Log", "Debugger"):
            self._call(f"{domain}.enable", session)
        self._call("Page.navigate", session, url=address)
        self._wait("Page.loadEventFired")
        self._call(
            "Emulation.setVirtualTimePolicy",
            session,
            policy="pauseIfNetworkFetchesPending",
            budget=1000 * PAGE_SECONDS,
        )
        self._wait("Emulation.virtualTimeBudgetExpired")
        happened = list(self._events)
        seen = self._look(session)
        self._call("Target.closeTarget", targetId=target)
        return Visit(
            requests=[
                url
                for event in happened
                for url in _requested(event)
                if url not in (address, "about:blank", "about:srcdoc")
            ],
            scripts=[
                event["params"]["url"] or event["params"]["scriptId"]
                for event in happened
                if event["method"] == "Debugger.scriptParsed"
            ],
            dialogs=[
                event["params"]["message"]
                for event in happened
                if event["method"] == "Page.javascriptDialogOpening"
            ],
            blocked=[
                event["params"]["entry"]["text"]
                for event in happened
                if event["method"] == "Log.entryAdded" and "Content Security" in str(event["params"])
            ],
            text="\n".join(part["text"] for part in seen),
            title=seen[0]["title"],
            elements=[(name, attributes) for part in seen for name, attributes in part["elements"]],
        )

    def picture(self, path: Path, width: int) -> bytes:
        """The whole of a local file's page as PNG, `width` CSS pixels wide."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._events.clear()
        self._call("Page.enable", session)
        screen = {"width": width, "height": 1, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", session, **screen)
        self._call("Page.navigate", session, url=path.resolve().as_uri())
        self._wait("Page.loadEventFired")
        size = self._call("Page.getLayoutMetrics", session)["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": width, "height": size["height"], "scale": 1}
        answer = self._call("Page.captureScreenshot", session, clip=clip, captureBeyondViewport=True)
        self._call("Target.closeTarget", targetId=target)
        return base64.b64decode(answer["data"])

    def _look(self, session: str) -> list[dict[str, Any]]:
        """What each frame shows, the page itself first."""
        seen = []
        tree = self._call("Page.getFrameTree", session)["frameTree"]
        waiting = [tree]
        while waiting:
            node = waiting.pop(0)
            waiting += node.get("childFrames", [])
            # A world of our own: a script of the page cannot change what is found.
            world = self._call("Page.createIsolatedWorld", session, frameId=node["frame"]["id"])
            answer = self._call(
                "Runtime.evaluate",
                session,
                expression=LOOK,
                contextId=world["executionContextId"],
                returnByValue=True,
            )
            seen.append(answer["result"]["value"])
        return seen

    def _call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        number = self._send(method, session, **parameters)
        while True:
            message = self._receive()
            if message.get("id") == number:
                assert "error" not in message, (method, message)
                result: dict[str, Any] = message["result"]
                return result

    def _wait(self, method: str) -> None:
        """Return when an event has come."""
        while not any(event["method"] == method for event in self._events):
            self._receive()

    def _send(self, method: str, session: str = "", **parameters: Any) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._connection.send(json.dumps(message | ({"sessionId": session} if session else {})))
        return self._number

    def _receive(self) -> dict[str, Any]:
        """The next message."""
        message: dict[str, Any] = json.loads(self._connection.recv(timeout=PATIENCE_SECONDS))
        if "method" in message:
            self._events.append(message)
        if message.get("method") == "Page.javascriptDialogOpening":
            self._send("Page.handleJavaScriptDialog", message["sessionId"], accept=True)
        return message


def _requested(event: dict[str, Any]) -> Iterator[str]:
    """Addresses that an event tells of."""
    parameters = event["params"]
    match event["method"]:
        case "Network.requestWillBeSent":
            yield parameters["request"]["url"]
        case "Network.webSocketCreated" | "Page.frameRequestedNavigation" | "Page.windowOpen":
            yield parameters["url"]


@contextmanager
def chromium() -> Iterator[Chromium]:
    """Start a browser with an empty profile; it ends with the block."""
    program = shutil.which("chromium")
    assert program, "Chromium is missing; on Debian: apt-get install --yes --no-install-recommends chromium"
    sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [program, *FLAGS, *sandbox, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            with connect(_address(process), max_size=None, proxy=None) as connection:
                yield Chromium(connection)
        finally:
            process.kill()
            process.communicate()


def _address(process: "subprocess.Popen[str]") -> str:
    """Where the browser listens; it says so when it has started."""
    said = []
    for line in process.stderr or ():
        said.append(line)
        if match := re.search(r"DevTools listening on (ws://\S+)", line):
            return match[1]
    raise AssertionError(f"Chromium did not start: {''.join(said)[-2000:]}")
