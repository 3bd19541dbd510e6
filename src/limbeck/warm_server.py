"""The process that imports once what every task of a local run needs, and forks for each of them.

It has one thread and uses nothing of what it has imported, so that a fork is as good as a fresh Python. What
it forks is a process of its own: its streams, variables, folder, exit code and signals; its process group is
the run's. See `limbeck.warm` for those who ask.
"""

import ast
import gc
import os
import pkgutil
import runpy
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TextIO

from pydantic import BaseModel

from limbeck import processes, warm
from limbeck.loading import loading

SOCKET = "warm"
"""The name of the server's socket in its folder."""
TASKS = (
    "kfp.dsl.executor",
    *(f"limbeck.tasks.{name}" for name in ("wiring", "stages", "trainings", "ablation")),
    "limbeck.storage.connection:connect",  # reads what makes a client
    "limbeck.preflight",
    "limbeck.planning.outline",
    *(
        f"limbeck.stages.{name}"
        for name in ("prepare", "generate", "judge", "label", "sft", "reward", "ppo", "evaluate", "report")
    ),
    "limbeck.planning.page",
    "scipy.stats",  # loaded where it is first used
)
"""What tasks of a pipeline load, in the order in which they do; after a colon a function that is called."""
RUNTIME = {"_KFP_RUNTIME": "true"}
"""With it kfp imports no compiler, as in a pod."""
GRACE_SECONDS = 0.1
"""Between the end of who asked for a process and its own: a SIGTERM to the whole process group reaches this
server meanwhile, and the process has got it already."""


class Request(BaseModel):
    """What `warm.Started` sends."""

    arguments: list[str]
    env: dict[str, str]
    folder: str
    imports: tuple[str, ...]
    process_group: bool


class _Forked(NamedTuple):
    """A process that runs, and who waits for it."""

    pid: int
    leads: bool
    asker: socket.socket


@contextmanager
def serving(folder: Path, log: TextIO, modules: Sequence[str] = TASKS) -> Iterator[Path]:
    """Run a server while the block runs.

    Args:
        folder: Where its socket and the program go; its path is short and has no blanks.
        log: Gets what it prints.
        modules: What it imports before it serves.

    Yields:
        A program that stands in for Python: see `limbeck.warm`.
    """
    address, program = folder / SOCKET, folder / "python"
    start = [sys.executable, "-I", "-S", warm.__file__, str(address), sys.executable]
    program.write_text(f'#!/bin/sh\nexec {shlex.join(start)} "$@"\n', encoding="utf-8")
    program.chmod(0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(address))
        listener.listen(socket.SOMAXCONN)
        server = subprocess.Popen(
            [sys.executable, "-m", "limbeck.warm_server", str(listener.fileno()), *modules],
            env=RUNTIME | dict(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
            preexec_fn=processes.dies_with_parent(signal.SIGKILL),  # noqa: PLW1509 - one call, nothing loaded
        )
    # Here the listener is closed: once the server is gone, nobody waits at its socket in vain.
    try:
        yield program
    finally:
        server.kill()
        server.wait()


def serve(listener: socket.socket, modules: Sequence[str]) -> list[str]:
    """Import, and fork whenever asked. It returns in forked processes alone.

    Args:
        listener: Where requests come in.
        modules: Imported one by one while nobody asks: a fork imports by itself what is not there yet.

    Returns:
        The module that this process is to run, and its arguments.
    """
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    signal.signal(signal.SIGTERM, lambda *_: _stop(selector))
    left = deque(modules)
    while True:
        events = selector.select(0 if left else None)
        if left and not events:
            _load(left.popleft())
        for key, _ in events[:1]:  # it may make the others void
            match key.data:
                case None:
                    arguments = _take(listener, selector)
                    if arguments:
                        return arguments
                case _Forked() as forked if key.fileobj is forked.asker:
                    _give_up(forked, selector)
                case _Forked() as forked:
                    _ended(forked, int(key.fd), selector)
                    if _is_stopping():
                        _stop(selector)


def _stop(selector: selectors.BaseSelector) -> None:
    """End with the last fork: they have got the same SIGTERM, and save first."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not any(isinstance(key.data, _Forked) for key in selector.get_map().values()):
        os._exit(0)


def _is_stopping() -> bool:
    return signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def _load(name: str) -> None:
    """Import a module, or call a function of one."""
    with loading():
        loaded = pkgutil.resolve_name(name)
    if callable(loaded):
        loaded()


def _take(listener: socket.socket, selector: selectors.BaseSelector) -> list[str] | None:
    """Read one request and fork; None in this process."""
    asker, _ = listener.accept()
    header, streams, _, _ = socket.recv_fds(asker, warm.HEADER_BYTES, len(warm.STREAMS))
    size = int.from_bytes(header, "big")
    data = asker.recv(size, socket.MSG_WAITALL)
    if len(data) < size or len(streams) != len(warm.STREAMS):  # who asked is gone
        asker.close()
        for stream in streams:
            os.close(stream)
        return None
    request = Request.model_validate(ast.literal_eval(data.decode()))
    for name in request.imports:
        _load(name)
    gc.collect()
    gc.freeze()  # else a fork that looks for garbage would copy all memory
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # else a new fork could miss it
    pid = os.fork()
    if pid:
        for stream in streams:
            os.close(stream)
        if request.process_group:
            with suppress(OSError):  # it did so first
                os.setpgid(pid, pid)
        forked = _Forked(pid, request.process_group, asker)
        selector.register(os.pidfd_open(pid), selectors.EVENT_READ, forked)
        selector.register(asker, selectors.EVENT_READ, forked)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        _tell(asker, pid)
        return None
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    _let_go(selector)
    asker.close()
    _become(request, streams)
    return request.arguments


def _let_go(selector: selectors.BaseSelector) -> None:
    """Close, in a forked process, what is the server's."""
    for key in list(selector.get_map().values()):
        if isinstance(key.fileobj, socket.socket):
            key.fileobj.close()
        else:
            os.close(key.fd)
    selector.close()


def _become(request: Request, streams: Sequence[int]) -> None:
    """Make a forked process what the request describes."""
    for stream, number in zip(streams, warm.STREAMS, strict=True):
        os.dup2(stream, number)
        os.close(stream)
    if request.process_group:
        os.setpgid(0, 0)
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.env)
    tempfile.tempdir = None  # TMPDIR may be another one
    processes.rename("limbeck-task")


def _ended(forked: _Forked, pidfd: int, selector: selectors.BaseSelector) -> None:
    """Tell who waits how a process ended."""
    selector.unregister(pidfd)
    with suppress(KeyError):  # it is gone already
        selector.unregister(forked.asker)
    os.close(pidfd)
    status = os.waitstatus_to_exitcode(os.waitpid(forked.pid, 0)[1])
    _tell(forked.asker, status)
    forked.asker.close()


def _give_up(forked: _Forked, selector: selectors.BaseSelector) -> None:
    """End a process whose asker is gone."""
    selector.unregister(forked.asker)
    time.sleep(GRACE_SECONDS)
    if _is_stopping():
        return
    with suppress(ProcessLookupError):
        if forked.leads:
            os.killpg(forked.pid, signal.SIGKILL)
        else:
            os.kill(forked.pid, signal.SIGTERM)


def _tell(asker: socket.socket, number: int) -> None:
    with suppress(OSError):  # it is gone, and will be noticed
        asker.sendall(number.to_bytes(warm.HEADER_BYTES, "big", signed=True))


def main(listener: socket.socket, modules: Sequence[str]) -> None:
    """Import and serve; in a forked process, run what it was forked for."""
    processes.rename("limbeck-warm")
    module, *arguments = serve(listener, modules)
    sys.argv[1:] = arguments
    code = 1
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = _exit_code(end)
    except BaseException:  # noqa: BLE001 - the entry point: as Python itself shows it
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # Python would take 0.2 s to take apart what the server has imported, and copy all of its memory for it.
    os._exit(code)


def _exit_code(end: SystemExit) -> int:
    """What Python makes of it."""
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
