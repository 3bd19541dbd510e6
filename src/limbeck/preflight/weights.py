"""The weights of a checkpoint by the headers of their safetensors files: complete, and of which shapes."""

import json
from dataclasses import dataclass
from math import prod
from typing import Any

from limbeck.errors import DataError
from limbeck.models import WEIGHTS
from limbeck.preflight.places import Place

MAX_HEADER_BYTES = 100_000_000
"""Source: the limit of the safetensors library."""
FIRST_READ = 256 << 10


@dataclass(frozen=True)
class Tensors:
    """What the headers of all weight files say."""

    shapes: dict[str, tuple[int, ...]]
    stored_bytes: int


def read_tensors(place: Place, sizes: dict[str, int], index: dict[str, Any]) -> Tensors | None:
    """Read the header of every weight file, and check that the file is as long as its header says.

    Raises:
        DataError: when one is empty, cut or no safetensors file.
    """
    listed = index.get("weight_map")
    if isinstance(listed, dict):
        names = sorted({str(name) for name in listed.values()} & sizes.keys())
    else:
        names = sorted(name for name in sizes if name.endswith(WEIGHTS))
    shapes: dict[str, tuple[int, ...]] = {}
    for name in names:
        shapes |= _header(place, name, sizes[name])
    return Tensors(shapes, sum(sizes[name] for name in names)) if names else None


def _header(place: Place, name: str, size: int) -> dict[str, tuple[int, ...]]:
    """Shapes by tensor. Source: the format's description in the safetensors README."""

    def damaged(expected: str, got: str) -> DataError:
        return DataError(
            "a damaged weight file",
            where=f"{place.path}/{name}",
            expected=expected,
            got=got,
            remedy="Copy it again",
        )

    head = place.read(0, min(size, FIRST_READ), name)
    length = int.from_bytes(head[:8], "little")
    if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
        raise damaged("a safetensors header", f"{size} bytes")
    if len(head) < 8 + length:
        head += place.read(len(head), 8 + length - len(head), name)
    try:
        header = json.loads(head[8 : 8 + length])
        header.pop("__metadata__", None)
        shapes = {str(key): tuple(int(n) for n in item["shape"]) for key, item in header.items()}
        end = max((int(item["data_offsets"][1]) for item in header.values()), default=0)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        OverflowError,
        RecursionError,
    ) as error:
        raise damaged("a safetensors header", type(error).__name__) from error
    if any(min(shape, default=0) < 0 or prod(shape) > 8 * size for shape in shapes.values()):
        raise damaged("shapes that the file can hold", f"{size} bytes")
    if size != 8 + length + end:
        raise damaged(f"{8 + length + end} bytes, as its header says", f"{size} bytes")
    return shapes
