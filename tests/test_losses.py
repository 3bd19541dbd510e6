"""Losses against hand-computed numbers."""

import math

import pytest
import torch

from limbeck.losses import (
    bce,
    bradley_terry,
    kl_k1,
    kl_k3,
    masked_mean,
    policy_loss,
    source_weighted,
    value_loss,
)


def test_masked_mean_leaves_padding_out() -> None:
    values = torch.tensor([[1.0, 3.0], [5.0, 100.0]])
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    assert masked_mean(values, mask).item() == 3.0


def test_masked_mean_of_nothing_is_zero() -> None:
    assert masked_mean(torch.ones(2, 2), torch.zeros(2, 2)).item() == 0.0


@pytest.mark.parametrize(("source_weight", "expected"), [(0.0, 4.0), (0.5, 3.0), (1.0, 2.0), (0.25, 3.5)])
def test_lambda_weighs_the_mean_of_each_source(source_weight: float, expected: float) -> None:
    loss = torch.tensor([1.0, 3.0, 4.0])  # teacher mean 2, student mean 4, whatever their numbers
    is_teacher = torch.tensor([1.0, 1.0, 0.0])
    assert source_weighted(loss, is_teacher, source_weight).item() == expected


def test_bce_is_minus_the_log_of_the_right_probability() -> None:
    scores, targets = torch.tensor([0.0, 2.0, 2.0]), torch.tensor([1.0, 1.0, 0.0])
    p = 1 / (1 + math.exp(-2))
    expected = [math.log(2), -math.log(p), -math.log(1 - p)]
    assert bce(scores, targets).tolist() == pytest.approx(expected, rel=1e-5)


def test_bradley_terry_sees_differences_alone() -> None:
    loss = bradley_terry(torch.tensor([1.0, 11.0]), torch.tensor([0.0, 10.0]))
    assert loss.tolist() == pytest.approx([math.log(1 + math.exp(-1))] * 2, rel=1e-5)


def test_policy_loss_clips_gains_but_not_losses() -> None:
    ratio = torch.tensor([[1.5, 1.5, 0.5, 0.5]])
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    loss, clipfrac = policy_loss(ratio.log(), torch.zeros(1, 4), advantages, torch.ones(1, 4), clip_coef=0.2)
    # -min(r A, clip(r) A): -1.2, +1.5, -0.5, +0.8
    assert loss.item() == pytest.approx((-1.2 + 1.5 - 0.5 + 0.8) / 4)
    assert clipfrac.item() == 1.0


def test_policy_loss_has_no_gradient_where_a_gain_is_clipped() -> None:
    logprobs = torch.tensor([[math.log(1.5), math.log(1.1)]], requires_grad=True)
    loss, _ = policy_loss(logprobs, torch.zeros(1, 2), torch.ones(1, 2), torch.ones(1, 2), clip_coef=0.2)
    torch.autograd.backward(loss)
    assert logprobs.grad is not None
    assert logprobs.grad[0].tolist() == pytest.approx([0.0, -0.55])


def test_value_loss_takes_the_worse_of_clipped_and_plain() -> None:
    values, old, returns = torch.tensor([[1.0]]), torch.tensor([[0.0]]), torch.tensor([[2.0]])
    mask = torch.ones(1, 1)
    assert value_loss(values, old, returns, mask, None).item() == pytest.approx(0.5)
    # Clipped to 0.2: (0.2 - 2)^2 / 2 = 1.62
    assert value_loss(values, old, returns, mask, 0.2).item() == pytest.approx(1.62)


def test_kl_estimators_have_the_right_mean() -> None:
    torch.manual_seed(0)
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.4, 0.4, 0.2])
    drawn = torch.multinomial(p, 200_000, replacement=True)
    exact = (p * (p / q).log()).sum().item()
    assert kl_k1(p.log()[drawn], q.log()[drawn]).mean().item() == pytest.approx(exact, abs=0.01)
    assert kl_k3(p.log()[drawn], q.log()[drawn]).mean().item() == pytest.approx(exact, abs=0.01)
    assert kl_k3(p.log()[drawn], q.log()[drawn]).min().item() >= 0
