"""Test programs in several processes: one launch for many cases, because each process imports for seconds."""

import subprocess
import sys
from pathlib import Path

from limbeck import local

ROOT = Path(__file__).parents[1]


def in_processes(number: int, module: str, *arguments: str) -> str:
    """Run a module in so many processes of one group and give its output; a failure fails the test."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(number), "-m", module, *arguments),
        ],
        cwd=ROOT,
        env=local.environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout
