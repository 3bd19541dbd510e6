"""torchrun, which besides notes the rank that failed first.

python -m limbeck.trainer.agent FOLDER ARGUMENTS...     the arguments are those of torchrun
"""

import signal
import sys
from pathlib import Path
from typing import Any

import torch.distributed.run
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from limbeck.jobs import FAILED, Failed

TORCHRUN: Any = torch.distributed.run  # untyped


def main(folder: Path, arguments: list[str]) -> int:
    """Run the workers; the exit code of this process."""
    try:
        TORCHRUN.run(TORCHRUN.parse_args(arguments))
    except ChildFailedError as error:
        rank, failure = min(error.failures.items(), key=lambda item: _order(item[1]))
        log = Path(failure.error_file).with_name("stderr.log")
        noted = Failed(rank=rank, exit_code=failure.exitcode, log=str(log))
        (folder / FAILED).write_text(noted.model_dump_json())
        return 1
    return 0


def _order(failure: ProcessFailure) -> tuple[bool, int, bool]:
    """Not what torchrun ended itself; the earliest; of one second who was killed: others fail of that."""
    return failure.exitcode == -signal.SIGTERM, failure.timestamp, failure.exitcode >= 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
