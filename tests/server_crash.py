"""An embedded S3 server that crashes and comes back, as a node of a cluster does."""

import os
import signal
import subprocess
import time
from pathlib import Path

from limbeck import processes


def kill_and_restart(folder: Path, down_seconds: float = 0.0) -> subprocess.Popen[bytes]:
    """End a server by SIGKILL, and start it with the same ports, keys and data.

    Args:
        folder: What `seaweed.serve` was given.
        down_seconds: How long it stays away.

    Returns:
        The new process, which the caller ends.
    """
    pid = int((folder / "weed.pid").read_text())
    command = processes.command_line(pid)
    variables = dict(
        item.split("=", 1) for item in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in item
    )
    os.kill(pid, signal.SIGKILL)
    while processes.command_line(pid):
        time.sleep(0.01)
    time.sleep(down_seconds)
    process = subprocess.Popen(
        command, env=variables, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    (folder / "weed.pid").write_text(str(process.pid))
    return process
