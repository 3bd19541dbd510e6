"""Which of a training's nodes this is: told by Kubeflow Trainer in a pod of a TrainJob, else the only one."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from limbeck.devices import num_gpus
from limbeck.errors import ConfigError

FROM_GPUS = ("auto", "cpu", "gpu")
"""What Kubeflow Trainer may say instead of a number of processes."""


@dataclass(frozen=True)
class Node:
    """One pod of a training, on which one or more processes train."""

    rank: int = 0
    """0 leads: it alone holds the lease, uploads states and the result, and commits."""
    count: int = 1
    """Nodes of the training."""
    address: str = "127.0.0.1"
    """Where the first node's processes are found."""
    port: int = 0
    """Of that address; 0: any free one, for a node that is alone."""
    processes: int | None = None
    """Training processes on each node, where Kubeflow says a number."""

    @property
    def leads(self) -> bool:
        """Whether this node does what is done once."""
        return self.rank == 0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the variables that the torch policy of a TrainingRuntime sets; without them a node is alone.

        Source: kubeflow.org, Trainer v2, PET_* of the torch plugin: the defaults of torchrun's arguments.

        Raises:
            ConfigError: when they do not fit together.
        """
        processes = environment.get("PET_NPROC_PER_NODE", "")
        node = cls(
            rank=_number(environment, "PET_NODE_RANK", cls().rank),
            count=_number(environment, "PET_NNODES", cls().count),
            address=environment.get("PET_MASTER_ADDR", cls().address),
            port=_number(environment, "PET_MASTER_PORT", cls().port),
            processes=None
            if processes in ("", *FROM_GPUS)
            else _number(environment, "PET_NPROC_PER_NODE", 1),
        )
        if node.rank >= node.count or (node.count > 1 and not node.port):
            raise ConfigError(
                "variables of several nodes that do not fit together",
                where="PET_NNODES, PET_NODE_RANK, PET_MASTER_PORT",
                expected="a rank below the number of nodes, and a port",
                got=f"rank {node.rank} of {node.count}, port {node.port}",
                remedy="The torch policy of a TrainingRuntime sets all of them",
            )
        return node

    def num_processes(self, wanted: int | None) -> int:
        """Training processes on each node.

        Args:
            wanted: `deepspeed.processes`; None: what Kubeflow says, else one a GPU, one without GPUs.
        """
        return wanted or self.processes or max(1, num_gpus())


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    """A variable that is a whole number."""
    text = environment.get(name, str(default))
    if not text.isdecimal():
        raise ConfigError(
            "not a number", where=f"environment variable {name}", expected="a whole number", got=repr(text)
        )
    return int(text)
