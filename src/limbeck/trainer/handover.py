"""The policy's weights on their way to its engine: one file, written over in place round after round.

A new file would be made of fresh pages each time, which takes several times as long as the copy itself. The
engine reads it after one `write` and before the next; it is never a result, and a new process starts it anew.
"""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from limbeck.trainer import ranks
from limbeck.trainer.networks import gathered, merged_weights, save_weights

LENGTH_BYTES = 8
"""A safetensors file begins with the length of its header. Source: the format's own description."""


class WeightsFile:
    """A checkpoint's weights, as one safetensors file that a process writes again and again."""

    def __init__(self, path: Path) -> None:
        """Nothing is written yet."""
        self._path = path
        self._places: dict[str, Tensor] | None = None
        """The bytes of each weight in the file: memory that is the file's. Only where this process writes."""

    def write(self, model: nn.Module) -> None:
        """Write a model's full weights, LoRA merged, whatever ZeRO has split.

        All processes must call it, with the same model each time; the first one of each node writes, and the
        others wait for it.
        """
        if self._places is None:
            save_weights(model, self._path)
            self._places = _places(self._path) if ranks.first_on_node() else {}
            return
        with gathered(model):
            if ranks.first_on_node():
                for name, weight in merged_weights(model):
                    self._places[name].view(weight.dtype).view(weight.shape).copy_(weight)
        ranks.barrier()


def _places(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name, as bytes: what is copied into them is in the file."""
    data = torch.from_file(str(path), shared=True, size=path.stat().st_size, dtype=torch.uint8)
    start = LENGTH_BYTES + int.from_bytes(bytes(data[:LENGTH_BYTES].tolist()), "little")
    header = json.loads(bytes(data[LENGTH_BYTES:start].tolist()))
    header.pop("__metadata__", None)
    places = {name: item["data_offsets"] for name, item in header.items()}
    return {name: data[start + first : start + end] for name, (first, end) in places.items()}
