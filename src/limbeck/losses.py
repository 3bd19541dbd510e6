"""Losses of the reward model and of PPO, as plain functions of tensors.

Shapes: B rows or rollouts, T completion tokens. Masks are 1 where a token counts.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - the field's own name
from torch import Tensor


def masked_mean(values_B_T: Tensor, mask_B_T: Tensor) -> Tensor:
    """Mean over the tokens that count; 0 when none does."""
    return (values_B_T * mask_B_T).sum() / mask_B_T.sum().clamp(min=1)


def source_weighted(loss_B: Tensor, is_teacher_B: Tensor, source_weight: float) -> Tensor:
    """`lambda * mean_teacher(l) + (1 - lambda) * mean_student(l)`.

    A batch that holds one source alone still counts it with its own weight.

    Source: that a weight lambda between sources enters reward-model training is the paper's
    (arXiv 2502.19557, Fig. 5); this form is ours.

    Args:
        loss_B: Loss of each row.
        is_teacher_B: 1 for rows of the teacher, 0 for rows of the student.
        source_weight: Lambda, 0 to 1.
    """
    teacher = masked_mean(loss_B, is_teacher_B)
    student = masked_mean(loss_B, 1 - is_teacher_B)
    return source_weight * teacher + (1 - source_weight) * student


def bce(scores_B: Tensor, pseudo_rewards_B: Tensor) -> Tensor:
    """Binary cross-entropy of each score (a logit) with its pseudo-reward (0 or 1)."""
    return F.binary_cross_entropy_with_logits(scores_B, pseudo_rewards_B, reduction="none")


def bradley_terry(chosen_B: Tensor, rejected_B: Tensor) -> Tensor:
    """`-log sigmoid(s_chosen - s_rejected)` of each pair of one prompt.

    Source: Ouyang et al. 2022, arXiv 2203.02155, eq. 1.
    """
    return -F.logsigmoid(chosen_B - rejected_B)


def policy_loss(
    logprobs_B_T: Tensor, old_logprobs_B_T: Tensor, advantages_B_T: Tensor, mask_B_T: Tensor, clip_coef: float
) -> tuple[Tensor, Tensor]:
    """The clipped surrogate, and the share of tokens it clipped.

    Source: Schulman et al. 2017, arXiv 1707.06347, eq. 7 (negated: it is minimised).

    Args:
        logprobs_B_T: Under the policy that learns; carries the gradient.
        old_logprobs_B_T: Under the policy that sampled.
        advantages_B_T: From GAE, normalised or not.
        mask_B_T: Completion tokens.
        clip_coef: Range of the ratio around 1.
    """
    ratio_B_T = (logprobs_B_T - old_logprobs_B_T).exp()
    unclipped_B_T = -advantages_B_T * ratio_B_T
    clipped_B_T = -advantages_B_T * ratio_B_T.clamp(1 - clip_coef, 1 + clip_coef)
    clipfrac = masked_mean(((ratio_B_T - 1).abs() > clip_coef).float(), mask_B_T)
    return masked_mean(torch.max(unclipped_B_T, clipped_B_T), mask_B_T), clipfrac


def value_loss(
    values_B_T: Tensor,
    old_values_B_T: Tensor,
    returns_B_T: Tensor,
    mask_B_T: Tensor,
    vf_clip_coef: float | None,
) -> Tensor:
    """Half the squared error to the returns; clipped around the old values when a range is given.

    Source: the clipped form of openai/baselines, as described in Huang et al. 2022, "The 37
    implementation details of proximal policy optimization", detail 9.
    """
    error_B_T = (values_B_T - returns_B_T) ** 2
    if vf_clip_coef is not None:
        near_B_T = old_values_B_T + (values_B_T - old_values_B_T).clamp(-vf_clip_coef, vf_clip_coef)
        error_B_T = torch.max(error_B_T, (near_B_T - returns_B_T) ** 2)
    return 0.5 * masked_mean(error_B_T, mask_B_T)


def kl_k1(logprobs_B_T: Tensor, ref_logprobs_B_T: Tensor) -> Tensor:
    """Per-token KL(policy || reference), estimated as `log p - log r`: unbiased, may be negative.

    Source: Schulman 2020, "Approximating KL divergence", estimator k1.
    """
    return logprobs_B_T - ref_logprobs_B_T


def kl_k3(logprobs_B_T: Tensor, ref_logprobs_B_T: Tensor) -> Tensor:
    """Per-token KL(policy || reference), estimated as `r/p - 1 - log(r/p)`: unbiased, never negative.

    Source: Schulman 2020, "Approximating KL divergence", estimator k3.
    """
    log_ratio_B_T = ref_logprobs_B_T - logprobs_B_T
    return log_ratio_B_T.exp() - 1 - log_ratio_B_T
