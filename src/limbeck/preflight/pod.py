"""Checks of the pod, or the machine, that preflight runs in: shared memory and scratch space.

Preflight's own pod mounts /dev/shm as GPU tasks do; its disk may be another node's.
"""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from limbeck.config import Config
from limbeck.errors import ConfigError
from limbeck.preflight.asked import Asked
from limbeck.preflight.findings import Finding, warning
from limbeck.preflight.gpus import SAMPLING_STAGES

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - what NCCL and vLLM's workers use
SHARED_MEMORY_BYTES = 1 << 30
"""Least shared memory of engines that are split over GPUs. Source: vLLM's and NCCL's guides ask for more than
Docker's 64 MiB; 1 GiB is NCCL's own advice."""


def check_shared_memory(asked: Asked, config: Config, folder: Path = SHARED_MEMORY) -> list[Finding]:
    """The workers of an engine that is split over GPUs meet in shared memory."""
    if config.engine.gpus == 1 or not asked.runs(*SAMPLING_STAGES) or not folder.is_dir():
        return []
    total = shutil.disk_usage(folder).total
    if total >= SHARED_MEMORY_BYTES:
        return []
    error = ConfigError(
        "too little shared memory for an engine that is split over GPUs",
        where=str(folder),
        expected=f"at least {SHARED_MEMORY_BYTES >> 20} MiB for an engine of {config.engine.gpus} GPUs",
        got=f"{total >> 20} MiB",
        remedy="Compile the pipeline with `limbeck compile --shm 16Gi`; on this machine remount it larger",
    )
    return [Finding(error)]


def scratch_bytes(asked: Asked, stored: Mapping[str, int], trained: Mapping[str, int]) -> dict[str, int]:
    """What each stage of the run puts on its local disk.

    Args:
        asked: The run.
        stored: Bytes of the weights of each model, by parameter; the reward model has those of its start.
        trained: Bytes of a training state (weights, master copy, moments) by parameter.

    Returns:
        Bytes by stage: downloads, results and, for trainings, a saved state with the best weights.
    """
    student, largest = stored.get("student", 0), max(stored.values(), default=0)
    reward, reward_state = stored.get("reward", 0), trained.get("reward", 0)
    needs = dict.fromkeys(("generate", "judge", "evaluate"), largest)
    needs["sft"] = 2 * student + trained.get("student", 0)
    needs["reward"] = 3 * reward + reward_state
    judge = stored.get("teacher", 0) if asked.judges_rollouts else 0
    needs["ppo"] = 4 * student + reward + judge + trained.get("student", 0) + reward_state
    return {stage: need for stage, need in needs.items() if asked.runs(stage)}


def check_scratch(needs: Mapping[str, int]) -> list[Finding]:
    """The disk here holds what the stages put on theirs; on a cluster that is a hint, as nodes differ."""
    stage = max(needs, key=lambda name: needs[name], default="")
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if not stage or free >= needs[stage]:
        return []
    error = ConfigError(
        f"little scratch space for stage {stage}",
        where=folder,
        expected=f"{needs[stage] >> 30} GiB free",
        got=f"{free >> 30} GiB",
        remedy="Free space or set TMPDIR; on a cluster see that `limbeck compile --scratch` gives that much",
    )
    return [warning(error)]
