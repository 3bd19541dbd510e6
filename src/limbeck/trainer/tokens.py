"""Text to token batches for training. Shapes: B rows, S tokens."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def conversation_ids(tokenizer: Any, prompt: str, completion: str, max_length: int) -> list[int]:
    """Token ids of a question and its answer in the chat template, cut at `max_length`."""
    ids: list[int] = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}],
        tokenize=True,
        return_dict=False,
    )
    return ids[:max_length]


def pad_right(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Rows of unequal length as ids and mask, both B x S, padded on the right."""
    width = max(map(len, rows))
    ids_B_S = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows])
    mask_B_S = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids_B_S, mask_B_S


def pad_left(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Rows of unequal length as ids and mask, both B x S, padded on the left."""
    width = max(map(len, rows))
    ids_B_S = torch.tensor([[*[pad_id] * (width - len(row)), *row] for row in rows])
    mask_B_S = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids_B_S, mask_B_S
