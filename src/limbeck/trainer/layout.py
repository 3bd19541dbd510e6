"""How rollouts lie in forward passes: which share one, and there each in a row of its own or several in one.

Only at completion tokens is anything read, so they are named by their places, and padding costs no more than
the layers of a network. Shapes: B rollouts, R rows, S tokens of a row, T completion tokens, N completion
tokens of all rollouts, one rollout after another.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from limbeck.trainer.packing import lines


class Layout(NamedTuple):
    """What networks read."""

    ids_R_S: Tensor
    mask_R_S: Tensor | None
    """1 on tokens, 0 on padding; None where rollouts share rows, which positions tell apart."""
    positions_R_S: Tensor
    """Counted anew in each rollout."""
    before_N: Tensor
    """Where the token before each completion token lies, in R x S taken flat."""
    tokens_N: Tensor
    """The completion tokens."""


def alike(mask_B_S: Tensor, rows: int) -> Sequence[Tensor]:
    """Places of rollouts, so many at a time, those of like length together: they pad little."""
    return torch.split(mask_B_S.sum(dim=1).cpu().argsort(stable=True), rows)


def laid(ids_B_S: Tensor, mask_B_S: Tensor, mask_B_T: Tensor, pad_id: int | None) -> Layout:
    """Rollouts without the columns that are padding in all of them; with a padding token they share rows.

    The other arguments are those of `padded`.
    """
    if pad_id is not None:
        return packed(ids_B_S, mask_B_S, mask_B_T, pad_id)
    inside_S = _inside(mask_B_S)
    # Completions without tokens have a column all the same.
    inside_T = _inside(mask_B_T) if mask_B_T.any() else slice(0, 1)
    start_S = ids_B_S.shape[1] - mask_B_T.shape[1]
    inside_S = slice(inside_S.start, start_S + inside_T.stop)
    return padded(ids_B_S[:, inside_S], mask_B_S[:, inside_S], mask_B_T[:, : inside_T.stop])


def _inside(mask_B_S: Tensor) -> slice:
    """From the first to the last column that has a token."""
    columns = mask_B_S.any(dim=0).nonzero()
    return slice(int(columns[0]), int(columns[-1]) + 1)


def padded(ids_B_S: Tensor, mask_B_S: Tensor, mask_B_T: Tensor) -> Layout:
    """One rollout a row, as it comes.

    Args:
        ids_B_S: Prompts padded on the left, completions on the right: the last T columns.
        mask_B_S: 1 on tokens, 0 on padding.
        mask_B_T: 1 on completion tokens.
    """
    num_tokens, width = mask_B_T.shape[1], ids_B_S.shape[1]
    rows_N, columns_N = mask_B_T.nonzero(as_tuple=True)
    return Layout(
        ids_R_S=ids_B_S,
        mask_R_S=mask_B_S,
        positions_R_S=(mask_B_S.cumsum(dim=1) - 1).clamp(min=0),
        before_N=rows_N * width + width - num_tokens + columns_N - 1,
        tokens_N=ids_B_S[:, -num_tokens:][rows_N, columns_N],
    )


def packed(ids_B_S: Tensor, mask_B_S: Tensor, mask_B_T: Tensor, pad_id: int) -> Layout:
    """Several rollouts a row, laid as `packing.lines` says; the arguments are those of `padded`."""
    where = ids_B_S.device
    rows = lines(mask_B_S.sum(dim=1).long().tolist(), int(mask_B_S.sum()))
    ends_B, counts_B = rows.ends_N.to(where), mask_B_T.sum(dim=1).long()
    ends_N = ends_B.repeat_interleave(counts_B)
    # How many tokens before its rollout's last one a completion token comes, and one more.
    behind_N = counts_B.repeat_interleave(counts_B) - mask_B_T.nonzero()[:, 1]
    return Layout(
        ids_R_S=rows.filled(ids_B_S[mask_B_S > 0], pad_id),
        mask_R_S=None,
        positions_R_S=rows.positions_B_S.to(where),
        before_N=ends_N - behind_N,
        tokens_N=ids_B_S[:, -mask_B_T.shape[1] :][mask_B_T > 0],
    )
