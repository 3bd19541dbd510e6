"""Log-probabilities and entropies of completions under a causal LM.

With a large vocabulary the logits are the memory of reinforcement learning. Here they are made for completion
tokens alone, and nothing else of their size is kept: what follows from them is computed piece by piece.
Shapes: N completion tokens, V vocabulary; in a batch B rollouts, S all tokens, T completion tokens.
"""

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from limbeck.trainer.layout import Layout, alike, laid

PIECE = 1 << 21
"""Logits at once in float32, 8 MiB: few enough beside those of a batch, enough to occupy a GPU."""


def completion_logprobs(model: nn.Module, layout: Layout, temperature: float) -> Tensor:
    """Log-probability of each completion token, N, with a gradient.

    Args:
        model: A causal LM (or its DeepSpeed engine).
        layout: The rollouts.
        temperature: What the logits are divided by; that of the rollouts.
    """
    return _scored(model, layout, temperature, with_entropy=False)[0]


def logprobs_and_entropy(model: nn.Module, layout: Layout, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probability of each completion token, and without a gradient the entropy there, both N.

    Args are those of `completion_logprobs`.
    """
    logprobs_N, entropy_N = _scored(model, layout, temperature, with_entropy=True)
    return logprobs_N, cast(Tensor, entropy_N)


def batch_logprobs(
    model: nn.Module,
    ids_B_S: Tensor,
    mask_B_S: Tensor,
    mask_B_T: Tensor,
    temperature: float,
    *,
    rows: int,
    pad_id: int | None,
    with_entropy: bool,
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities with a gradient and, if wanted, entropies without one; B x T, 0 on padding.

    Args:
        model: A causal LM (or its DeepSpeed engine).
        ids_B_S: Prompts padded on the left, completions on the right: the last T columns.
        mask_B_S: 1 on tokens, 0 on padding.
        mask_B_T: 1 on completion tokens.
        temperature: What the logits are divided by; that of the rollouts.
        rows: Most rollouts of one pass.
        pad_id: The padding token where those of a pass share rows, else None.
        with_entropy: Whether entropies are wanted.
    """
    parts, found = alike(mask_B_S, rows), list[Tensor]()
    for places in parts:
        layout = laid(ids_B_S[places], mask_B_S[places], mask_B_T[places], pad_id)
        logprobs_N, entropy_N = _scored(model, layout, temperature, with_entropy=with_entropy)
        found.append(torch.stack([logprobs_N] if entropy_N is None else [logprobs_N, entropy_N]))
    order_B, found_N = torch.cat(list(parts)).to(mask_B_T.device), torch.cat(found, dim=1)
    zeros_B_T = torch.zeros(len(found_N), *mask_B_T.shape, device=mask_B_T.device)
    found_B_T = zeros_B_T.masked_scatter(mask_B_T[order_B] > 0, found_N)[:, order_B.argsort()]
    return found_B_T[0], found_B_T[1].detach() if with_entropy else None


def _scored(
    model: nn.Module, layout: Layout, temperature: float, *, with_entropy: bool
) -> tuple[Tensor, Tensor | None]:
    scored: tuple[Tensor, Tensor | None] = _TokenLogprobs.apply(  # type: ignore[no-untyped-call]
        _logits(model, layout), layout.tokens_N, temperature, with_entropy
    )
    return scored


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
    def forward(
        ctx: Any, logits_N_V: Tensor, tokens_N: Tensor, temperature: float, with_entropy: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Logits to N, and N or nothing."""
        chosen_N, norm_N, entropy_N = (torch.empty(len(tokens_N), device=logits_N_V.device) for _ in range(3))
        for piece in _pieces(logits_N_V):
            scaled_P_V = logits_N_V[piece].float() / temperature
            chosen_N[piece] = _of_tokens(scaled_P_V, tokens_N[piece])
            norm_N[piece] = scaled_P_V.logsumexp(dim=-1)
            if with_entropy:
                scaled_P_V = scaled_P_V.log_softmax(dim=-1)
                entropy_N[piece] = -scaled_P_V.exp().mul_(scaled_P_V).sum(dim=-1)
        ctx.save_for_backward(logits_N_V, tokens_N, norm_N)
        ctx.mark_non_differentiable(entropy_N)
        ctx.temperature = temperature
        return chosen_N - norm_N, entropy_N if with_entropy else None

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor, _: Tensor | None) -> tuple[Tensor, None, None, None]:
        """As above."""
        logits_N_V, tokens_N, norm_N = ctx.saved_tensors
        scale_N_1 = (grad_N / ctx.temperature).unsqueeze(-1)
        for piece in _pieces(logits_N_V):
            scaled_P_V = logits_N_V[piece].float() / ctx.temperature
            grads_P_V = scaled_P_V.sub_(norm_N[piece, None]).exp_().mul_(-scale_N_1[piece])
            grads_P_V.scatter_add_(-1, tokens_N[piece, None], scale_N_1[piece])
            logits_N_V[piece] = grads_P_V
        return logits_N_V, None, None, None


def _pieces(logits_N_V: Tensor) -> Iterator[slice]:
    """Some tokens at a time."""
    count, vocabulary = logits_N_V.shape
    step = max(1, PIECE // vocabulary)
    return (slice(start, start + step) for start in range(0, count, step))


def _of_tokens(values_P_V: Tensor, tokens_P: Tensor) -> Tensor:
    return values_P_V.gather(-1, tokens_P.unsqueeze(-1)).squeeze(-1)
