"""From scores to advantages: token rewards with the KL penalty, GAE, whitening, the KL controller.

Shapes: B rollouts, T completion tokens. Masks are 1 on a rollout's own tokens, which start at
column 0 and are contiguous.
"""

import torch
from torch import Tensor

from limbeck.losses import masked_mean


def token_rewards(scores_B: Tensor, kl_B_T: Tensor, mask_B_T: Tensor, kl_coef: float) -> Tensor:
    """Minus the KL penalty at each token, plus the score at a rollout's last token.

    Source: Ouyang et al. 2022, arXiv 2203.02155, eq. 2 without the pre-training term, spread over
    tokens as in Ziegler et al. 2019, arXiv 1909.08593.

    Args:
        scores_B: One score a rollout.
        kl_B_T: Per-token KL estimates, in nats.
        mask_B_T: Completion tokens; at least one a rollout.
        kl_coef: Penalty in reward per nat.
    """
    rewards_B_T = -kl_coef * kl_B_T * mask_B_T
    last_B = mask_B_T.sum(dim=1).long() - 1
    rewards_B_T[torch.arange(len(scores_B)), last_B] += scores_B
    return rewards_B_T


def gae(
    rewards_B_T: Tensor, values_B_T: Tensor, mask_B_T: Tensor, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimation over finished rollouts; the value after the last token is 0.

    Source: Schulman et al. 2015, arXiv 1506.02438, eq. 16, as a backward recursion.

    Returns:
        Advantages and returns (advantages + values), both B x T and 0 outside the mask.
    """
    advantages_B_T = torch.zeros_like(rewards_B_T)
    next_advantage_B = torch.zeros_like(rewards_B_T[:, 0])
    next_value_B = torch.zeros_like(next_advantage_B)
    for t in reversed(range(rewards_B_T.shape[1])):
        inside_B = mask_B_T[:, t]
        delta_B = rewards_B_T[:, t] + gamma * next_value_B - values_B_T[:, t]
        next_advantage_B = (delta_B + gamma * gae_lambda * next_advantage_B) * inside_B
        next_value_B = values_B_T[:, t] * inside_B
        advantages_B_T[:, t] = next_advantage_B
    return advantages_B_T, (advantages_B_T + values_B_T) * mask_B_T


def whiten(values_B_T: Tensor, mask_B_T: Tensor) -> Tensor:
    """Shift and scale to mean 0 and variance 1 over the tokens that count; 0 elsewhere."""
    mean = masked_mean(values_B_T, mask_B_T)
    variance = masked_mean((values_B_T - mean) ** 2, mask_B_T)
    return (values_B_T - mean) * torch.rsqrt(variance + 1e-8) * mask_B_T


def adapted_kl_coef(kl_coef: float, kl: float, target_kl: float, horizon: float = 10.0) -> float:
    """The next KL coefficient of the proportional controller, which aims at `target_kl`.

    Source: Ziegler et al. 2019, arXiv 1909.08593, section 2.2 (error clipped to +-0.2).

    Args:
        kl_coef: The present coefficient.
        kl: Measured KL of a completion, in nats.
        target_kl: What it should be, in nats.
        horizon: Rounds over which a full error moves the coefficient by 20 %.
    """
    error = min(max(kl / target_kl - 1, -0.2), 0.2)
    return kl_coef * (1 + error / horizon)
