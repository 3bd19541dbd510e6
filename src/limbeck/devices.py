"""The GPUs that a process can see, found without loading an engine."""

import os
from pathlib import Path

DEVICES = Path("/dev")


def num_gpus(devices: Path = DEVICES) -> int:
    """How many NVIDIA GPUs: in a pod those that it was given, elsewhere those of the machine.

    CUDA_VISIBLE_DEVICES takes some away, as it does for the engines: what stands behind a -1 counts no more.

    Args:
        devices: Where device files lie; a GPU's is `nvidia` and its number.
    """
    here = len(list(devices.glob("nvidia[0-9]*")))
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return here
    chosen = [item.strip() for item in named.split(",")]
    if "-1" in chosen:
        chosen = chosen[: chosen.index("-1")]
    return min(here, len([item for item in chosen if item]))
