"""Two long runs in processes of their own that take turns: each works when told, and says what it took.

The parent holds a `Worker` of each side; in the worker's process `Turns.end` is called from a hook of the
training loop, between two of its updates. A side that waits uses no processor. Only the standard library is
needed: the other side may have an environment of its own.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

GO = b"go\n"


class Worker:
    """A side's process, seen from the parent."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        """Start it; it is waited for until it is ready. What it prints goes to the log.

        Raises:
            RuntimeError: when it ends before that.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        read, write = os.pipe()
        waits, self._go = os.pipe()
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [*command, "--figures", str(write)],
                env=dict(env),
                stdin=waits,
                stdout=out,
                stderr=subprocess.STDOUT,
                pass_fds=[write],
            )
        os.close(write)
        os.close(waits)
        self._figures = os.fdopen(read, encoding="utf-8")
        self.ready = self._read()

    def turn(self) -> dict[str, float]:
        """Let it do one update; its figures, `seconds` among them.

        Raises:
            RuntimeError: when it ends instead.
        """
        os.write(self._go, GO)
        return self._read()

    def close(self) -> None:
        """End it where it is."""
        self._process.kill()
        self._process.wait()
        os.close(self._go)

    def _read(self) -> dict[str, float]:
        line = self._figures.readline()
        if not line:
            raise RuntimeError(f"a side has ended: see {self._log}")
        figures: dict[str, float] = json.loads(line)
        return figures


class Turns:
    """In the side's process."""

    def __init__(self, figures: int) -> None:
        """`figures` is the number that the parent gave as `--figures`."""
        self._out = os.fdopen(figures, "w", encoding="utf-8")
        self._started, self._used = time.monotonic(), time.process_time()

    def end(self, **figures: float) -> None:
        """Say what this turn took, and wait for the next one; ends the process when there is none."""
        figures["seconds"] = time.monotonic() - self._started
        figures["cpu_seconds"] = time.process_time() - self._used
        self._out.write(json.dumps(figures) + "\n")
        self._out.flush()
        if os.read(0, len(GO)) != GO:
            os._exit(0)
        self._started, self._used = time.monotonic(), time.process_time()


def peak() -> float:
    """Most memory since it was asked last, in MiB: of the GPU where there is one, else of the process."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        held = int(torch.cuda.max_memory_reserved())
        torch.cuda.reset_peak_memory_stats()
        return held / 2**20
    held = int(Path("/proc/self/status").read_text(encoding="utf-8").split("VmHWM:")[1].split()[0])
    Path("/proc/self/clear_refs").write_text("5")  # Source: proc(5)
    return held / 1024
