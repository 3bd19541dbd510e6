"""A network for containers in which one loopback port of this machine is all there is."""

import contextlib
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from limbeck import processes

START_SECONDS = 10.0


@contextmanager
def only(port: int) -> Iterator[str]:
    """Make a network namespace with a loopback interface, no route, and 127.0.0.1:port forwarded out of it.

    Packets cannot leave: two socats pass bytes on through a Unix socket, which lies in the file system.

    Args:
        port: The port, on the loopback interface of both sides.

    Yields:
        The namespace's path, for `podman run --network ns:PATH`.
    """
    name = f"limbeck-{secrets.token_hex(4)}"
    inside = ["ip", "netns", "exec", name]
    with tempfile.TemporaryDirectory(prefix="limbeck-") as folder, contextlib.ExitStack() as running:
        _ip("netns", "add", name)
        running.callback(_ip, "netns", "delete", name)
        _ip("-netns", name, "link", "set", "lo", "up")
        path = f"{folder}/socket"
        outer = ["socat", f"UNIX-LISTEN:{path},fork,backlog=128", f"TCP:127.0.0.1:{port}"]
        inner = ["socat", f"TCP-LISTEN:{port},bind=127.0.0.1,fork,backlog=128", f"UNIX-CONNECT:{path}"]
        for command in (outer, [*inside, *inner]):
            process = subprocess.Popen(command, text=True, start_new_session=True)
            running.callback(processes.stop, process, 2.0)
        deadline = time.monotonic() + START_SECONDS
        probe = [*inside, "socat", "-u", "OPEN:/dev/null", f"TCP:127.0.0.1:{port}"]
        while subprocess.run(probe, check=False, stderr=subprocess.DEVNULL).returncode:
            assert time.monotonic() < deadline, f"port {port} is not forwarded"
            time.sleep(0.05)
        yield str(Path("/run/netns", name))


def _ip(*arguments: str) -> None:
    command = ["ip", *arguments]
    subprocess.run(command, check=True)
