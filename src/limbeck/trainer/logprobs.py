"""Log-probabilities and entropies of completions under a causal LM.

With a large vocabulary the logits are the memory of reinforcement learning. Here they are made for completion
tokens alone, and nothing else of their size is kept: what follows from them is computed piece by piece.
Shapes: N completion tokens, V vocabulary.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.trainer.layout import Layout

PIECE = 1 << 21
"""Logits at once in float32, 8 MiB: few enough beside those of a batch, enough to occupy a GPU."""


def completion_logprobs(model: nn.Module, layout: Layout, temperature: float) -> Tensor:
    """Log-probability of each completion token, N, with a gradient.

    Args:
        model: A causal LM (or its DeepSpeed engine).
        layout: The rollouts.
        temperature: What the logits are divided by; that of the rollouts.
    """
    logprobs_N: Tensor = _TokenLogprobs.apply(_logits(model, layout), layout.tokens_N, temperature)  # type: ignore[no-untyped-call]
    return logprobs_N


@torch.no_grad()
def logprobs_and_entropy(model: nn.Module, layout: Layout, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probability of each completion token and the entropy there, both N, without a gradient.

    Args are those of `completion_logprobs`.
    """
    logits_N_V, tokens_N = _logits(model, layout), layout.tokens_N
    logprobs_N, entropy_N = (torch.empty(len(tokens_N), device=logits_N_V.device) for _ in range(2))
    for piece in _pieces(logits_N_V):
        all_P_V = (logits_N_V[piece].float() / temperature).log_softmax(dim=-1)
        logprobs_N[piece] = _of_tokens(all_P_V, tokens_N[piece])
        entropy_N[piece] = -(all_P_V.exp() * all_P_V).sum(dim=-1)
    return logprobs_N, entropy_N


def _logits(model: Any, layout: Layout) -> Tensor:
    """Logits before each completion token, N x V.

    The output layer gets no other hidden states. What a model does to logits afterwards (scale, cap) it does.
    """

    def choose(_: nn.Module, hidden: tuple[Tensor]) -> Tensor:
        return hidden[0].flatten(0, 1)[layout.before_N].unsqueeze(0)

    hook = model.get_output_embeddings().register_forward_pre_hook(choose)
    try:
        logits: Tensor = model(
            layout.ids_R_S,
            attention_mask=layout.mask_R_S,
            position_ids=layout.positions_R_S,
            use_cache=False,
        ).logits
    finally:
        hook.remove()
    return logits.squeeze(0)


class _TokenLogprobs(torch.autograd.Function):
    """Log-softmax at the tokens; for the gradient it keeps the logits as they came, and one number a token.

    d log p(token) / d logit(v) = ([v = token] - p(v)) / temperature

    The gradient takes the place of the logits. If what made them had kept them for its own gradient, torch
    would see that they have changed, and raise.
    """

    @staticmethod
    def forward(ctx: Any, logits_N_V: Tensor, tokens_N: Tensor, temperature: float) -> Tensor:
        """Logits to N."""
        chosen_N, norm_N = (torch.empty(len(tokens_N), device=logits_N_V.device) for _ in range(2))
        for piece in _pieces(logits_N_V):
            scaled_P_V = logits_N_V[piece].float() / temperature
            chosen_N[piece] = _of_tokens(scaled_P_V, tokens_N[piece])
            norm_N[piece] = scaled_P_V.logsumexp(dim=-1)
        ctx.save_for_backward(logits_N_V, tokens_N, norm_N)
        ctx.temperature = temperature
        return chosen_N - norm_N

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor, None, None]:
        """As above."""
        logits_N_V, tokens_N, norm_N = ctx.saved_tensors
        scale_N_1 = (grad_N / ctx.temperature).unsqueeze(-1)
        for piece in _pieces(logits_N_V):
            scaled_P_V = logits_N_V[piece].float() / ctx.temperature
            grads_P_V = scaled_P_V.sub_(norm_N[piece, None]).exp_().mul_(-scale_N_1[piece])
            grads_P_V.scatter_add_(-1, tokens_N[piece, None], scale_N_1[piece])
            logits_N_V[piece] = grads_P_V
        return logits_N_V, None, None


def _pieces(logits_N_V: Tensor) -> Iterator[slice]:
    """Some tokens at a time."""
    count, vocabulary = logits_N_V.shape
    step = max(1, PIECE // vocabulary)
    return (slice(start, start + step) for start in range(0, count, step))


def _of_tokens(values_P_V: Tensor, tokens_P: Tensor) -> Tensor:
    return values_P_V.gather(-1, tokens_P.unsqueeze(-1)).squeeze(-1)
