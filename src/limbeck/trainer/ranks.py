"""The processes (ranks) of one training: what they share, and what they tell each other.

Each function is called by all ranks at the same time, and costs one process alone nothing.
"""

import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, distributed

from limbeck.errors import ConfigError
from limbeck.section import micro_batch
from limbeck.trainer.engines import device

Item = TypeVar("Item")


class Passes(NamedTuple):
    """How one process makes its part of an update."""

    rows: int
    """In one forward pass."""
    accumulation: int
    """Forward passes whose gradients are accumulated."""


def size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this is; 0 leads."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def rank_on_node() -> int:
    """Which of the processes of its node this is."""
    return int(os.environ["LOCAL_RANK"]) if size() > 1 else 0


def size_on_node() -> int:
    """How many processes train on each node."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if size() > 1 else 1


def leads() -> bool:
    """Whether this one does what is done once."""
    return rank() == 0


def first_on_node() -> bool:
    """Whether this one writes the files that all processes of its node write alike."""
    return rank_on_node() == 0


def barrier() -> None:
    """Wait for the others."""
    any_of(False)


def any_of(flag: bool) -> bool:
    """Whether it is so for any of them."""
    return total_of(float(flag)) > 0


def mean_of(value: float) -> float:
    """The mean of what each has, in float64."""
    return total_of(value) / size()


def total_of(value: float) -> float:
    """The sum of what each has, in float64: the same on all."""
    if size() == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64, device=device())
    distributed.all_reduce(total)
    return float(total)


def gather(items: Sequence[Any]) -> list[Any]:
    """The items of all, those of the first rank first: numbers, texts and lists of them.

    They travel as JSON: what arrives can run no code.
    """
    if size() == 1:
        return list(items)
    mine = torch.frombuffer(bytearray(json.dumps(list(items)).encode()), dtype=torch.uint8).to(device())
    lengths = [torch.zeros(1, dtype=torch.int64, device=device()) for _ in range(size())]
    distributed.all_gather(lengths, torch.tensor([len(mine)], device=device()))
    padded = torch.zeros(int(max(lengths)), dtype=torch.uint8, device=device())
    padded[: len(mine)] = mine
    texts = [torch.zeros_like(padded) for _ in range(size())]
    distributed.all_gather(texts, padded)
    parts = [
        json.loads(bytes(text[: int(length)].tolist())) for text, length in zip(texts, lengths, strict=True)
    ]
    return [item for part in parts for item in part]


def gather_rows(rows_B: Tensor) -> Tensor:
    """The rows of all, those of the first rank first; each must have as many."""
    if size() == 1:
        return rows_B
    parts = [torch.empty_like(rows_B) for _ in range(size())]
    distributed.all_gather(parts, rows_B.contiguous())
    return torch.cat(parts)


def share(items: Sequence[Item]) -> Sequence[Item]:
    """This rank's part: the parts of all differ by one item at most, and `gather` joins them again."""
    first, last = (len(items) * number // size() for number in (rank(), rank() + 1))
    return items[first:last]


def passes(batch_size: int, micro_batch_size: int | None, where: str) -> Passes:
    """How this process makes its part of an update of `batch_size` rows.

    Args:
        batch_size: Rows of one update, of all processes together.
        micro_batch_size: Most rows of one forward pass of one process; None: no bound.
        where: The section of the settings: `sft`, `reward`, `ppo`.

    Raises:
        ConfigError: when the processes cannot share the batch evenly, or not in such passes.
    """
    mine, rest = divmod(batch_size, size())
    if rest:
        raise ConfigError(
            f"a batch that {size()} processes cannot share",
            where=f"{where}, rows of an update",
            expected=f"a multiple of {size()}",
            got=str(batch_size),
            remedy=f"Change {where}.batch_size, or the number of processes",
        )
    try:
        rows = micro_batch(mine, micro_batch_size)
    except ValueError as error:
        raise ConfigError(
            f"a batch that {size()} processes cannot share",
            where=f"{where}.micro_batch_size",
            expected=f"a divisor of {mine}, the rows of one process in an update",
            got=str(micro_batch_size),
            remedy="Change it, or the number of processes",
        ) from error
    return Passes(rows, mine // rows)
