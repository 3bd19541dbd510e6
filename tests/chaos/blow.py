"""One blow: at a moment of a stage's work, seen at the door of its object store, its processes are killed."""

import contextlib
import json
import os
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, get_args
from urllib.parse import unquote, urlsplit

from limbeck import processes
from limbeck.lease import LEASE
from limbeck.manifest import MANIFEST
from limbeck.progress import PLACE_BYTES
from tests.fault_proxy import Answer, Request

Moment = Literal["start", "10%", "50%", "commit", "checkpoint", "manifest"]
"""The lease was taken; so much of the time of an unbroken run; rows, weights or pages are stored; a training
state is uploaded; the manifest is to be written."""
MOMENTS: tuple[Moment, ...] = get_args(Moment)
Kind = Literal["group", "term", "child", "server"]
"""SIGKILL of the stage's process group, which is that of the whole run; SIGTERM of its task; SIGKILL of the
process that works, as by a system without memory; SIGKILL of the object store, which comes back later."""
KINDS: tuple[Kind, ...] = get_args(Kind)
FRACTIONS: dict[Moment, float] = {"10%": 0.1, "50%": 0.5}


class Plan(NamedTuple):
    """What is to happen."""

    prefix: str
    """`bucket/work/stage/key/`."""
    moment: Moment
    kind: Kind
    seconds: float
    """After the lease, for the moments that are a share of the time."""
    nth: int
    """Which of the requests of the moment, from 1."""
    is_stored: bool
    """Whether that request still reaches the store; never the manifest's."""


class Blow:
    """Watches the requests of a run, and strikes once."""

    def __init__(self, plan: Plan, crash_server: Callable[[], None]) -> None:
        """Nothing happens before the stage takes its lease.

        Args:
            plan: When, and how.
            crash_server: Kills the object store, and returns when it is back.
        """
        self._plan, self._crash_server = plan, crash_server
        self.has_struck = False
        self.place = ""
        """How far the stage had come: `120/1000 completions`."""
        self._pid = self._count = 0
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def pass_on(self, request: Request, ask: Callable[[], Answer]) -> Answer | None:
        """Stand between the run and its store."""
        key = unquote(urlsplit(request.path).path).lstrip("/")
        if self.has_struck or request.method != "PUT" or not key.startswith(self._plan.prefix):
            return ask()
        name = key.removeprefix(self._plan.prefix)
        if name == LEASE:
            taken = ask()
            self._see_lease(request.body)
            return taken
        if not self._is_it(name):
            return ask()
        answer = ask() if self._plan.is_stored and self._plan.moment != "manifest" else None
        self.strike()
        # Who is killed hears no answer; who only hears of SIGTERM, or of a lost server, asks again.
        return answer if self._plan.kind == "server" else None

    def strike(self) -> None:
        """Kill what is to be killed."""
        with self._lock:
            if self.has_struck:
                return
            self.has_struck = True
        self.place = how_far(self._pid)
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it was faster
            self._kill()

    def end(self) -> None:
        """Strike no more."""
        self.has_struck = True
        if self._timer:
            self._timer.cancel()

    def _kill(self) -> None:
        if self._plan.kind == "group":
            group = os.getpgid(self._pid)
            assert group != os.getpgrp(), "the run has no group of its own"
            os.killpg(group, signal.SIGKILL)
        elif self._plan.kind == "child":
            os.kill(self._pid, signal.SIGKILL)
        elif self._plan.kind == "term":
            os.kill(task_of(self._pid), signal.SIGTERM)
        else:
            self._crash_server()

    def _see_lease(self, body: bytes) -> None:
        lease = json.loads(body)
        if lease["state"] != "held" or self._pid:
            return
        self._pid = lease["pid"]
        if self._plan.moment == "start":
            self.strike()
        elif self._plan.moment in FRACTIONS:
            self._timer = threading.Timer(self._plan.seconds, self.strike)
            self._timer.daemon = True
            self._timer.start()

    def _is_it(self, name: str) -> bool:
        """Whether this is the request of the moment."""
        if name.startswith("state/"):
            wanted = self._plan.moment == "checkpoint"
        elif name == MANIFEST or name.endswith(f"/{MANIFEST}"):
            wanted = self._plan.moment == "manifest"
        else:
            wanted = self._plan.moment == "commit"
        with self._lock:
            self._count += wanted
            return wanted and self._count == self._plan.nth


def task_of(pid: int) -> int:
    """The process that Kubeflow started, which the one that works may be a fork of."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    parent = int(stat.rpartition(")")[2].split()[1])
    names = [Path(f"/proc/{number}/comm").read_text(encoding="utf-8") for number in (parent, pid)]
    is_fork = processes.command_line(parent) == processes.command_line(pid) and names[0] == names[1]
    return parent if is_fork else pid


def how_far(pid: int) -> str:
    """What another process told `limbeck.progress.mark` last; read from its memory, as it is to be killed."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
        with Path(f"/proc/{pid}/mem").open("rb") as memory:
            for start in re.findall(r"^([0-9a-f]+)-\S+ rw-s \S+ \S+ \S+ +/dev/zero \(deleted\)$", maps, re.M):
                memory.seek(int(start, 16))
                text = memory.read(PLACE_BYTES).rstrip(b"\0").decode(errors="replace")
                if re.fullmatch(r"\d+/\d+ \w+", text):
                    return text
    except OSError:
        return ""
    return ""
