"""Several completions in one row: less padding. Shapes: B rows, S tokens.

Each piece counts its positions from 0 again. transformers 5 sees that in the position ids and lets a token
look at its own piece alone, if no attention mask is given (`find_packed_sequence_indices` of its
masking_utils). The loss of a batch is the mean over its trained tokens, wherever they lie.
"""

import heapq
from collections.abc import Mapping, Sequence
from itertools import accumulate, chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from limbeck.errors import ConfigError
from limbeck.trainer.tokens import IGNORED

STRETCH = 2
"""Longest row, in longest pieces. Of mixed lengths about 15% is padding with 1, 7% with 2, little less with
more (docs/speed/training.md)."""
MASKED_ATTENTION = ("sdpa", "eager")
"""Implementations that take the mask made of the position ids in batches of several rows; transformers 5
gives flash attention the pieces of a batch of one row alone."""
BLIND_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}
"""Kinds of layers, as config.json names them, that see no more than the mask shows."""


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Which pieces share a row: as few rows as hold them, filled evenly, as all are padded to the longest.

    A row is at most `STRETCH` times as long as the longest piece, too: attention costs its square.

    Args:
        lengths: Tokens of each piece, none above `capacity`.
        capacity: Most tokens of a row.

    Returns:
        The places of the pieces, by row. Source: each piece goes, longest first, into the emptiest row:
        Graham 1969, "Bounds on multiprocessing timing anomalies", at most 4/3 of the least possible width.
    """
    capacity = min(capacity, STRETCH * max(lengths, default=0))
    count = -(-sum(lengths) // capacity) if lengths else 0
    while True:
        rows: list[list[int]] = [[] for _ in range(count)]
        filled = [(0, row) for row in range(count)]
        for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
            tokens, row = filled[0]
            rows[row].append(place)
            heapq.heapreplace(filled, (tokens + lengths[place], row))
        if max(filled, default=(0, 0))[0] <= capacity:
            return rows
        count += 1


def packed_batch(pieces: Sequence[Mapping[str, list[int]]], pad_id: int, capacity: int) -> dict[str, Tensor]:
    """The batch of some pieces, for the trainer.

    Args:
        pieces: `input_ids` and `labels` of each; the first label is never trained on.
        pad_id: The padding token. Each padding token is a piece of its own.
        capacity: Most tokens of a row.

    Returns:
        `input_ids`, `labels` and `position_ids`, all B x S; no attention mask.
    """
    ids = [piece["input_ids"] for piece in pieces]
    rows = pack(list(map(len, ids)), capacity)
    return {
        "input_ids": _laid(rows, ids, pad_id),
        "labels": _laid(rows, [piece["labels"] for piece in pieces], IGNORED),
        "position_ids": _laid(rows, [range(len(piece)) for piece in ids], 0),
    }


class PackedRows(NamedTuple):
    """Pieces whose last tokens are asked for."""

    ids_B_S: Tensor
    positions_B_S: Tensor
    """Counted anew in each piece."""
    ends_N: Tensor
    """Where each of the N pieces ends, in B x S taken flat."""


def packed_rows(pieces: Sequence[Sequence[int]], pad_id: int, capacity: int) -> PackedRows:
    """The batch of some pieces, for a scorer; the arguments are those of `packed_batch`."""
    rows = pack(list(map(len, pieces)), capacity)
    ids_B_S = _laid(rows, pieces, pad_id)
    ends = [0] * len(pieces)
    for number, row in enumerate(rows):
        for place, end in zip(row, accumulate(len(pieces[place]) for place in row), strict=True):
            ends[place] = number * ids_B_S.shape[1] + end - 1
    return PackedRows(
        ids_B_S, _laid(rows, [range(len(piece)) for piece in pieces], 0), torch.tensor(ends, dtype=torch.long)
    )


def _laid(rows: list[list[int]], parts: Sequence[Sequence[int]], padding: int) -> Tensor:
    """What belongs to the pieces, one behind another in their rows, B x S."""
    joined = [list(chain.from_iterable(parts[place] for place in row)) for row in rows]
    width = max(map(len, joined))
    return torch.tensor([[*row, *[padding] * (width - len(row))] for row in joined])


def check_packable(model: Any, setting: str) -> None:
    """Refuse models whose layers would carry something from one piece into the next.

    Args:
        model: What is trained.
        setting: Which one asks for it: `sft.packing`.

    Raises:
        ConfigError: when the model keeps a state besides attention, or computes attention in another way.
    """
    config = model.config.get_text_config()
    attention, layers = config._attn_implementation, set(getattr(config, "layer_types", None) or ())
    if attention in MASKED_ATTENTION and layers <= BLIND_LAYERS and not model._is_stateful:
        return
    raise ConfigError(
        "a model whose completions cannot share a row",
        where=setting,
        expected=f"attention by {' or '.join(MASKED_ATTENTION)} in all layers",
        got=", ".join([type(model).__name__, attention, *sorted(layers)]),
        remedy=f"Set {setting}: false",
    )
