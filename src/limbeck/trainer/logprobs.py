"""Log-probabilities and entropies of completions under a causal LM.

With a large vocabulary the logits are the memory of reinforcement learning. Here they are made for completion
tokens alone, and nothing else of their size is kept: what follows from them is computed piece by piece.
Shapes: B rows, S all tokens, T completion tokens, V vocabulary.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

PIECE = 1 << 21
"""Logits at once in float32, 8 MiB: few enough beside those of a batch, enough to occupy a GPU."""


def completion_logprobs(
    model: nn.Module, ids_B_S: Tensor, mask_B_S: Tensor, num_tokens: int, temperature: float
) -> Tensor:
    """Log-probability of each completion token, B x T, with a gradient.

    Args:
        model: A causal LM (or its DeepSpeed engine).
        ids_B_S: Prompts padded on the left, completions on the right.
        mask_B_S: 1 on tokens, 0 on padding.
        num_tokens: T, the width of the completions: the last T columns.
        temperature: What the logits are divided by; that of the rollouts.
    """
    logits = _logits(model, ids_B_S, mask_B_S, num_tokens)
    logprobs_B_T: Tensor = _TokenLogprobs.apply(logits, ids_B_S[:, -num_tokens:], temperature)  # type: ignore[no-untyped-call]
    return logprobs_B_T


@torch.no_grad()
def logprobs_and_entropy(
    model: nn.Module, ids_B_S: Tensor, mask_B_S: Tensor, num_tokens: int, temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probability of each completion token and the entropy there, both B x T, without a gradient.

    Args are those of `completion_logprobs`.
    """
    logits = _logits(model, ids_B_S, mask_B_S, num_tokens)
    tokens_B_T = ids_B_S[:, -num_tokens:]
    logprobs_B_T, entropy_B_T = (torch.empty(tokens_B_T.shape, device=logits.device) for _ in range(2))
    for piece in _pieces(logits, num_tokens):
        all_B_P_V = (logits[:, piece].float() / temperature).log_softmax(dim=-1)
        logprobs_B_T[:, piece] = _of_tokens(all_B_P_V, tokens_B_T[:, piece])
        entropy_B_T[:, piece] = -(all_B_P_V.exp() * all_B_P_V).sum(dim=-1)
    return logprobs_B_T, entropy_B_T


def _logits(model: nn.Module, ids_B_S: Tensor, mask_B_S: Tensor, num_tokens: int) -> Tensor:
    """Logits before each completion token, and after the last one, which nothing reads."""
    logits: Tensor = model(
        ids_B_S,
        attention_mask=mask_B_S,
        position_ids=(mask_B_S.cumsum(dim=1) - 1).clamp(min=0),
        use_cache=False,
        logits_to_keep=num_tokens + 1,
    ).logits
    return logits


class _TokenLogprobs(torch.autograd.Function):
    """Log-softmax at the tokens; for the gradient it keeps the logits as they came, and one number a token.

    d log p(token) / d logit(v) = ([v = token] - p(v)) / temperature

    The gradient takes the place of the logits. If what made them had kept them for its own gradient, torch
    would see that they have changed, and raise.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens_B_T: Tensor, temperature: float) -> Tensor:
        """Logits of T + 1 places, the last of them unused, to B x T."""
        num_tokens = tokens_B_T.shape[1]
        chosen_B_T, norm_B_T = (torch.empty(tokens_B_T.shape, device=logits.device) for _ in range(2))
        for piece in _pieces(logits, num_tokens):
            scaled_B_P_V = logits[:, piece].float() / temperature
            chosen_B_T[:, piece] = _of_tokens(scaled_B_P_V, tokens_B_T[:, piece])
            norm_B_T[:, piece] = scaled_B_P_V.logsumexp(dim=-1)
        ctx.save_for_backward(logits, tokens_B_T, norm_B_T)
        ctx.temperature = temperature
        return chosen_B_T - norm_B_T

    @staticmethod
    def backward(ctx: Any, grad_B_T: Tensor) -> tuple[Tensor, None, None]:
        """As above; logits that nothing reads have no gradient."""
        logits, tokens_B_T, norm_B_T = ctx.saved_tensors
        num_tokens = tokens_B_T.shape[1]
        scale_B_T_1 = (grad_B_T / ctx.temperature).unsqueeze(-1)
        for piece in _pieces(logits, num_tokens):
            scaled_B_P_V = logits[:, piece].float() / ctx.temperature
            grads_B_P_V = scaled_B_P_V.sub_(norm_B_T[:, piece, None]).exp_().mul_(-scale_B_T_1[:, piece])
            grads_B_P_V.scatter_add_(-1, tokens_B_T[:, piece, None], scale_B_T_1[:, piece])
            logits[:, piece] = grads_B_P_V
        logits[:, num_tokens:] = 0
        return logits, None, None


def _pieces(logits: Tensor, num_tokens: int) -> Iterator[slice]:
    """Places of completion tokens, some at a time."""
    rows, _, vocabulary = logits.shape
    step = max(1, PIECE // (rows * vocabulary))
    return (slice(start, min(start + step, num_tokens)) for start in range(0, num_tokens, step))


def _of_tokens(values_B_P_V: Tensor, tokens_B_P: Tensor) -> Tensor:
    return values_B_P_V.gather(-1, tokens_B_P.unsqueeze(-1)).squeeze(-1)
