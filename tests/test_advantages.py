"""Token rewards, GAE and whitening against hand-computed numbers and slow loops."""

import pytest
import torch

from limbeck.advantages import adapted_kl_coef, gae, token_rewards, whiten

MASK = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])


def test_the_score_comes_at_the_last_token_and_the_kl_at_each() -> None:
    kl = torch.tensor([[0.1, 0.2, 0.3, 9.0], [1.0, 2.0, 9.0, 9.0], [0.0, 0.0, 0.0, 0.5]])
    rewards = token_rewards(torch.tensor([1.0, 2.0, 3.0]), kl, MASK, kl_coef=0.5)
    expected = [[-0.05, -0.1, 0.85, 0.0], [-0.5, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 2.75]]
    assert torch.allclose(rewards, torch.tensor(expected))


def test_gae_by_hand() -> None:
    rewards, values = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.25]])
    advantages, returns = gae(rewards, values, torch.ones(1, 2), gamma=0.9, gae_lambda=0.8)
    # delta_1 = 1 - 0.25 = 0.75; delta_0 = 0.9 * 0.25 - 0.5 = -0.275; A_0 = -0.275 + 0.72 * 0.75
    assert advantages.tolist() == [pytest.approx([0.265, 0.75])]
    assert returns.tolist() == [pytest.approx([0.765, 1.0])]


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(1.0, 0.95), (0.99, 0.0), (0.9, 1.0)])
def test_gae_equals_the_sum_of_discounted_errors(gamma: float, gae_lambda: float) -> None:
    torch.manual_seed(0)
    rewards, values = torch.randn(3, 4) * MASK, torch.randn(3, 4) * MASK
    advantages, returns = gae(rewards, values, MASK, gamma, gae_lambda)
    for row in range(3):
        length = int(MASK[row].sum())
        for t in range(length):
            expected = 0.0
            for later in range(t, length):
                after = values[row, later + 1].item() if later + 1 < length else 0.0
                delta = rewards[row, later].item() + gamma * after - values[row, later].item()
                expected += (gamma * gae_lambda) ** (later - t) * delta
            assert advantages[row, t].item() == pytest.approx(expected, abs=1e-5)
            assert returns[row, t].item() == pytest.approx(expected + values[row, t].item(), abs=1e-5)
    assert (advantages * (1 - MASK)).abs().sum() == 0


def test_garbage_in_the_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    rewards, values = torch.randn(3, 4) * MASK, torch.randn(3, 4) * MASK
    clean = gae(rewards, values, MASK, 1.0, 0.95)[0]
    dirty = gae(rewards + 7 * (1 - MASK), values + 3 * (1 - MASK), MASK, 1.0, 0.95)[0]
    assert torch.equal(clean, dirty)


def test_whitened_values_have_mean_zero_and_variance_one_where_they_count() -> None:
    values = whiten(torch.tensor([[1.0, 2.0, 3.0, 50.0]] * 3), MASK)
    inside = values[MASK.bool()]
    assert inside.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert inside.var(correction=0).item() == pytest.approx(1.0, abs=1e-5)
    assert (values * (1 - MASK)).abs().sum() == 0


@pytest.mark.parametrize(("kl", "expected"), [(6.0, 0.1), (60.0, 0.102), (0.0, 0.098), (6.6, 0.101)])
def test_the_kl_controller_moves_at_most_two_percent_a_round(kl: float, expected: float) -> None:
    assert adapted_kl_coef(0.1, kl, target_kl=6.0) == pytest.approx(expected)
