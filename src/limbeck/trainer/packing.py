"""Several completions in one row: less padding. Shapes: B rows, S tokens, N pieces with K tokens.

Each piece counts its positions from 0 again. transformers 5 sees that in the position ids and lets a token
look at its own piece alone, if no attention mask is given (`find_packed_sequence_indices` of its
masking_utils). The loss of a batch is the mean over its trained tokens, wherever they lie.
"""

import heapq
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from limbeck.errors import ConfigError
from limbeck.trainer.tokens import IGNORED, joined

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
    places = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    count = -(-sum(lengths) // capacity) if lengths else 0
    while True:
        rows: list[list[int]] = [[] for _ in range(count)]
        filled = [(0, row) for row in range(count)]
        for place in places:
            tokens, row = filled[0]
            if tokens + lengths[place] > capacity:
                break
            rows[row].append(place)
            heapq.heapreplace(filled, (tokens + lengths[place], row))
        else:
            return rows
        count += 1


class Lines(NamedTuple):
    """Where in B x S, taken flat, the K tokens of N pieces lie, one piece after another."""

    at_K: Tensor
    ends_N: Tensor
    """Where each piece has its last token."""
    positions_B_S: Tensor
    """Counted anew in each piece. Each padding token is a piece of its own."""

    def filled(self, values_K: Tensor, padding: int) -> Tensor:
        """What belongs to the tokens, B x S."""
        filled = torch.full((self.positions_B_S.numel(),), padding, device=values_K.device)
        filled[self.at_K.to(values_K.device)] = values_K
        return filled.view(self.positions_B_S.shape)


def lines(lengths: Sequence[int], capacity: int) -> Lines:
    """Lay pieces of so many tokens in rows, as `pack` says."""
    rows = pack(lengths, capacity)
    width = max(sum(lengths[place] for place in row) for row in rows)
    starts = [0] * len(lengths)
    for number, row in enumerate(rows):
        start = number * width
        for place in row:
            starts[place] = start
            start += lengths[place]
    starts_N, lengths_N = torch.tensor(starts), torch.tensor(lengths)
    behind_N = lengths_N.cumsum(0) - lengths_N
    positions_K = torch.arange(sum(lengths)) - behind_N.repeat_interleave(lengths_N)
    at_K = starts_N.repeat_interleave(lengths_N) + positions_K
    positions = torch.zeros(len(rows) * width, dtype=torch.long)
    positions[at_K] = positions_K
    return Lines(at_K, starts_N + lengths_N - 1, positions.view(len(rows), width))


def packed_batch(pieces: Sequence[Mapping[str, list[int]]], pad_id: int, capacity: int) -> dict[str, Tensor]:
    """The batch of some pieces, for the trainer.

    Args:
        pieces: `input_ids` and `labels` of each; the first label is never trained on.
        pad_id: The padding token.
        capacity: Most tokens of a row.

    Returns:
        `input_ids`, `labels` and `position_ids`, all B x S; no attention mask.
    """
    laid = lines([len(piece["input_ids"]) for piece in pieces], capacity)
    ids_K, labels_K = (joined([piece[name] for piece in pieces]) for name in ("input_ids", "labels"))
    return {
        "input_ids": laid.filled(ids_K, pad_id),
        "labels": laid.filled(labels_K, IGNORED),
        "position_ids": laid.positions_B_S,
    }


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
