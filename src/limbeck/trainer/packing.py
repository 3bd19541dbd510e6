"""Several completions in one row: less padding. Shapes: B rows, S tokens.

Each piece counts its positions from 0 again. transformers 5 sees that in the position ids and lets a token
look at its own piece alone, if no attention mask is given (`find_packed_sequence_indices` of its
masking_utils). The loss of a batch is the mean over its trained tokens, wherever they lie.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from limbeck.errors import ConfigError
from limbeck.trainer.tokens import IGNORED

MASKED_ATTENTION = ("sdpa", "eager")
"""Implementations that take the mask made of the position ids in batches of several rows; transformers 5
gives flash attention the pieces of a batch of one row alone."""
BLIND_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}
"""Kinds of layers, as config.json names them, that see no more than the mask shows."""


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Which pieces share a row: each goes, longest first, into the first row that has room.

    Args:
        lengths: Tokens of each piece, none above `capacity`.
        capacity: Most tokens of a row.

    Returns:
        The places of the pieces, by row. Source: first-fit decreasing, Johnson 1973, at most 11/9 of the
        fewest rows possible (and 6/9 of one).
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        row = next((row for row, left in enumerate(room) if left >= lengths[place]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(capacity)
        rows[row].append(place)
        room[row] -= lengths[place]
    return rows


def packed_batch(pieces: Sequence[Mapping[str, list[int]]], pad_id: int, capacity: int) -> dict[str, Tensor]:
    """The batch of some pieces, for the trainer.

    Args:
        pieces: `input_ids` and `labels` of each; the first label is never trained on.
        pad_id: The padding token. Each padding token is a piece of its own.
        capacity: Most tokens of a row.

    Returns:
        `input_ids`, `labels` and `position_ids`, all B x S; no attention mask.
    """
    rows = pack([len(piece["input_ids"]) for piece in pieces], capacity)
    width = max(sum(len(pieces[place]["input_ids"]) for place in row) for row in rows)

    def laid(parts: list[list[list[int]]], padding: int) -> Tensor:
        joined = [list(chain.from_iterable(row)) for row in parts]
        return torch.tensor([[*row, *[padding] * (width - len(row))] for row in joined])

    ids = [[pieces[place]["input_ids"] for place in row] for row in rows]
    return {
        "input_ids": laid(ids, pad_id),
        "labels": laid([[pieces[place]["labels"] for place in row] for row in rows], IGNORED),
        "position_ids": laid([[list(range(len(piece))) for piece in row] for row in ids], 0),
    }


def check_packable(model: Any) -> None:
    """Refuse models whose layers would carry something from one piece into the next.

    Raises:
        ConfigError: when the model keeps a state besides attention, or computes attention in another way.
    """
    config = model.config.get_text_config()
    attention, layers = config._attn_implementation, set(getattr(config, "layer_types", None) or ())
    if attention in MASKED_ATTENTION and layers <= BLIND_LAYERS and not model._is_stateful:
        return
    raise ConfigError(
        "a model whose completions cannot share a row",
        where="sft.packing",
        expected=f"attention by {' or '.join(MASKED_ATTENTION)} in all layers",
        got=", ".join([type(model).__name__, attention, *sorted(layers)]),
        remedy="Set sft.packing: false",
    )
