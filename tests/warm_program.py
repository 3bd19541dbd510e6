"""What `test_warm` has the server run: it tells what it finds, or behaves as its first argument says."""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main(behaviour: str, path: str = "") -> None:
    """Tell, end in some way, or wait for SIGTERM."""
    if behaviour == "tell":
        told = {
            "arguments": sys.argv[1:],
            "folder": str(Path.cwd()),
            "variables": dict(os.environ),
            "group": os.getpgrp(),
            "leads": os.getpgrp() == os.getpid(),
            "input": sys.stdin.read(),
            "server_threads": len(list(Path(f"/proc/{os.getppid()}/task").iterdir())),
            "vllm": "vllm" in sys.modules,
        }
        print(json.dumps(told))
        print("and of errors", file=sys.stderr)
        sys.exit(7)
    if behaviour == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "raise":
        raise ValueError("nobody thought of this")
    if behaviour == "wait":

        def stopped(*_: object) -> None:
            Path(path).write_text("stopped")
            sys.exit(10)

        signal.signal(signal.SIGTERM, stopped)
        Path(path).write_text(str(os.getpid()))
        time.sleep(60)


if __name__ == "__main__":
    main(*sys.argv[1:])
