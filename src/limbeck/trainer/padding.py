"""Forward passes with little padding. Shapes: B rows, S all tokens, T completion tokens.

Rows of like length share a pass, and a pass leaves out the columns that are padding in all its rows.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

Scored = tuple[Tensor, Tensor | None, Tensor | None]
"""Log-probabilities and entropies of completion tokens, B x T, and an auxiliary loss, as TRL gives them."""


def inside(mask_B_S: Tensor) -> slice:
    """From the first to the last column that has a token."""
    columns = mask_B_S.any(dim=0).nonzero()
    return slice(int(columns[0]), int(columns[-1]) + 1)


def alike(lengths_B: Tensor, rows: int) -> Sequence[Tensor]:
    """Places of rows, so many at a time, those of like length together."""
    return torch.split(lengths_B.cpu().argsort(stable=True), rows)


def without_padding(
    score: Callable[[Tensor, Tensor, int], Scored],
    ids_B_S: Tensor,
    mask_B_S: Tensor,
    num_tokens: int,
    rows: int,
) -> Scored:
    """What a function gives of rows, from passes with little padding.

    Args:
        score: Takes ids, mask, and how many of the last columns are completion tokens.
        ids_B_S: Prompts padded on the left, completions on the right.
        mask_B_S: 1 on tokens, 0 on padding.
        num_tokens: T.
        rows: Most rows of one pass.

    Returns:
        Zeros where a pass has left padding out; of an auxiliary loss the mean over passes.
    """
    prompt_width = ids_B_S.shape[1] - num_tokens
    parts = alike(mask_B_S.sum(dim=1), rows)
    logprobs, entropies, losses = list[Tensor](), list[Tensor](), list[Tensor]()
    for places in parts:
        columns = inside(mask_B_S[places])
        # A completion without tokens is scored too: at least one column.
        columns = slice(columns.start, max(columns.stop, prompt_width + 1))
        width = columns.stop - prompt_width
        found = score(ids_B_S[places, columns], mask_B_S[places, columns], width)
        for item, kept in ((found[0], logprobs), (found[1], entropies)):
            if item is not None:
                kept.append(pad(item, (0, num_tokens - width)))
        if found[2] is not None:
            losses.append(found[2])
    order = torch.cat(list(parts)).argsort().to(ids_B_S.device)
    return (
        torch.cat(logprobs)[order],
        torch.cat(entropies)[order] if entropies else None,
        torch.stack(losses).mean() if losses else None,
    )
