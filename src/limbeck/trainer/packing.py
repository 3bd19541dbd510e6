"""Several completions in one row: less padding. Shapes: B rows, S tokens, N pieces with K tokens.

Each piece counts its positions from 0 again. transformers 5 sees that in the position ids and lets a token
look at its own piece alone, if no attention mask is given (`find_packed_sequence_indices` of its
masking_utils). The loss of a batch is the mean over its trained tokens, wherever they lie.
"""

import heapq
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from limbeck.errors import ConfigError
from limbeck.trainer.tokens import IGNORED, joined

STRETCHES = (1, 1.5, 2)
"""How long the longest row may be, in longest pieces: narrower rows pad more, in wider ones attention costs
more, and beyond 2 little padding is left (docs/speed/training.md)."""
SPENT = 0.02
"""How much larger a batch may be for the sake of narrower rows."""
MASKED_ATTENTION = ("sdpa", "eager")
"""Implementations that take the mask made of the position ids in batches of several rows; transformers 5
gives flash attention the pieces of a batch of one row alone."""
BLIND_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}
"""Kinds of layers, as config.json names them, that see no more than the mask shows."""


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Which pieces share a row: the narrowest rows that pad hardly more than wider ones would.

    All rows are padded to the longest, and attention costs the square of their length.

    Args:
        lengths: Tokens of each piece, none above `capacity`.
        capacity: Most tokens of a row.

    Returns:
        The places of the pieces, by row.
    """
    if not lengths:
        return []
    tried = [_rows(lengths, min(capacity, int(stretch * max(lengths)))) for stretch in STRETCHES]
    sizes = [len(rows) * _width(rows, lengths) for rows in tried]
    return next(rows for rows, size in zip(tried, sizes, strict=True) if size <= (1 + SPENT) * min(sizes))


def _rows(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """As few rows as best fit finds, filled evenly where that makes them narrower."""
    places = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    fitted = _best_fit(lengths, places, capacity)
    evened = _evened(lengths, places, len(fitted))
    return min(evened, fitted, key=lambda rows: _width(rows, lengths))


def _best_fit(lengths: Sequence[int], places: Sequence[int], capacity: int) -> list[list[int]]:
    """Each piece, longest first, goes into the fullest row that has room for it.

    Source: best-fit decreasing, Johnson 1973, "Near-optimal bin packing algorithms": at most 11/9 of the
    fewest rows.
    """
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []
    for place in places:
        at = bisect_left(room, (lengths[place], 0))
        left, row = room.pop(at) if at < len(room) else (capacity, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(place)
        insort(room, (left - lengths[place], row))
    return rows


def _evened(lengths: Sequence[int], places: Sequence[int], count: int) -> list[list[int]]:
    """Each piece, longest first, goes into the emptiest of so many rows.

    Source: Graham 1969, "Bounds on multiprocessing timing anomalies": at most 4/3 of the least width.
    """
    rows: list[list[int]] = [[] for _ in range(count)]
    filled = [(0, row) for row in range(count)]
    for place in places:
        tokens, row = filled[0]
        rows[row].append(place)
        heapq.heapreplace(filled, (tokens + lengths[place], row))
    return rows


def _width(rows: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    return max(sum(lengths[place] for place in row) for row in rows)


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
