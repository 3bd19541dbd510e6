"""One round of PPO's learning: advantages of the rollouts, then minibatches for critic and policy.

Every rank holds the whole round and computes its advantages; what needs a network is shared out, by rows. So
the means below are those of the round, and of each update, however many ranks there are.

Shapes: B rollouts, S all tokens, T completion tokens, N completion tokens of all rollouts together.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from limbeck.advantages import adapted_kl_coef, gae, token_rewards, whiten
from limbeck.config import Config, PpoConfig
from limbeck.jobs import Course
from limbeck.losses import kl_k1, kl_k3, masked_mean, policy_loss, value_loss
from limbeck.trainer import ranks
from limbeck.trainer.engines import device, set_learning_rate
from limbeck.trainer.layout import Layout, alike, laid
from limbeck.trainer.logprobs import completion_logprobs, logprobs_and_entropy
from limbeck.trainer.rollouts import RewardModel, Rollouts


@dataclass
class Networks:
    """The four models of PPO; policy and critic are DeepSpeed engines, the other two are frozen."""

    policy: Any
    critic: Any
    reference: torch.nn.Module | None
    """None with LoRA: it is the policy without its adapters."""
    reward_model: RewardModel
    tokenizer: Any


@dataclass(frozen=True)
class Batch:
    """A round of rollouts with all that the losses need; B x T but for the first two."""

    ids_B_S: Tensor
    mask_B_S: Tensor
    mask_B_T: Tensor
    logprobs_B_T: Tensor
    values_B_T: Tensor
    advantages_B_T: Tensor
    returns_B_T: Tensor

    def part(self, index: Tensor, pad_id: int | None) -> "Part":
        """Some rollouts of it; `pad_id` as in `laid`."""
        ids_B_S, mask_B_S, mask_B_T = self.ids_B_S[index], self.mask_B_S[index], self.mask_B_T[index]
        values = (self.logprobs_B_T, self.values_B_T, self.advantages_B_T, self.returns_B_T)
        return Part(
            laid(ids_B_S, mask_B_S, mask_B_T, pad_id), *(item[index][mask_B_T > 0] for item in values)
        )


class Part(NamedTuple):
    """What a forward pass learns from, N completion tokens."""

    layout: Layout
    logprobs_N: Tensor
    values_N: Tensor
    advantages_N: Tensor
    returns_N: Tensor


def _alike(places: Sequence[int], mask_B_S: Tensor, rows: int) -> Sequence[Tensor]:
    """This rank's places of some rows, as its forward passes: rows of like length together, to pad little."""
    mine = torch.tensor(ranks.share(places))
    return [mine[part] for part in alike(mask_B_S[mine], rows)]


def update(rollouts: Rollouts, networks: Networks, course: Course, config: Config) -> dict[str, float]:
    """Learn from one round; returns its metrics (each explained in docs/metrics.md)."""
    settings = config.ppo
    rate = 1 - course.update / settings.num_updates if settings.anneal_lr else 1.0
    set_learning_rate(networks.policy, settings.learning_rate * rate)
    set_learning_rate(networks.critic, settings.value_learning_rate * rate)
    batch, metrics = _batch(rollouts, networks, course.kl_coef, settings)
    random = np.random.default_rng([config.seed, course.update, 2])
    losses: list[dict[str, float]] = []
    for _ in range(settings.num_ppo_epochs):
        for index in np.array_split(random.permutation(settings.batch_size), settings.num_minibatches):
            learns = course.update >= settings.critic_warmup_updates
            losses.append(_step(batch, index.tolist(), networks, settings, policy_learns=learns))
    metrics |= _means(ranks.gather([losses]))
    metrics["ppo/kl_coef"] = course.kl_coef
    metrics["ppo/learning_rate"] = settings.learning_rate * rate
    # What follows from them must not differ, so all go on with the first rank's, whatever rounds elsewhere.
    metrics = dict(ranks.gather([metrics])[0])
    if settings.adaptive_kl:
        course.kl_coef = adapted_kl_coef(course.kl_coef, metrics["ppo/kl"], settings.target_kl)
    return metrics


def _means(losses: Sequence[Sequence[dict[str, float]]]) -> dict[str, float]:
    """The mean over updates of what each rank has a part of; of each rank, of each update."""
    updates = list(zip(*losses, strict=True))
    return {
        name: float(np.mean([sum(part[name] for part in parts) for parts in updates]))
        for name in losses[0][0]
    }


def passes(settings: PpoConfig) -> ranks.Passes:
    """The forward passes of this rank in one update.

    Raises:
        ConfigError: when the ranks cannot share its rollouts.
    """
    return ranks.passes(settings.batch_size // settings.num_minibatches, settings.micro_batch_size, "ppo")


def _batch(
    rollouts: Rollouts, networks: Networks, kl_coef: float, settings: PpoConfig
) -> tuple[Batch, dict[str, float]]:
    """Log-probabilities, values, rewards and advantages of a round, without gradients."""
    where = device()
    ids_B_S, mask_B_S, mask_B_T = (
        tensor.to(where) for tensor in (rollouts.ids_B_S, rollouts.mask_B_S, rollouts.mask_B_T)
    )
    told_B_T = None if rollouts.logprobs_B_T is None else rollouts.logprobs_B_T.to(where)
    logprobs_B_T, entropy_B_T, ref_logprobs_B_T, values_B_T = _passed(
        ids_B_S, mask_B_S, mask_B_T, told_B_T, networks, settings
    )
    values_B_T = values_B_T * mask_B_T

    kl_B_T = kl_k1(logprobs_B_T, ref_logprobs_B_T) * mask_B_T
    scores_B = rollouts.scores_B.to(where)
    scaled_B = scores_B
    if settings.whiten_rewards:
        scaled_B = scores_B / (scores_B.std() + 1e-6)
    rewards_B_T = token_rewards(scaled_B, kl_B_T, mask_B_T, kl_coef)
    advantages_B_T, returns_B_T = gae(rewards_B_T, values_B_T, mask_B_T, settings.gamma, settings.gae_lambda)
    explained = 1 - masked_variance(returns_B_T - values_B_T, mask_B_T) / masked_variance(
        returns_B_T, mask_B_T
    )
    if settings.norm_adv:
        advantages_B_T = whiten(advantages_B_T, mask_B_T)
    metrics = {
        "ppo/score": float(scores_B.mean()),
        "ppo/proxy": float(rollouts.proxy_B.mean()),
        "ppo/reward": float(rewards_B_T.sum(dim=1).mean()),
        "ppo/batch_agreement": rollouts.agreement,
        "ppo/kl": float(kl_B_T.sum(dim=1).mean()),
        "ppo/kl_k3": float((kl_k3(logprobs_B_T, ref_logprobs_B_T) * mask_B_T).sum(dim=1).mean()),
        "ppo/entropy": float(masked_mean(entropy_B_T, mask_B_T)),
        "ppo/length": float(mask_B_T.sum(dim=1).mean()),
        "ppo/cut": rollouts.cut,
        "ppo/explained_variance": float(explained),
        **rollouts.judged,
    }
    batch = Batch(ids_B_S, mask_B_S, mask_B_T, logprobs_B_T, values_B_T, advantages_B_T, returns_B_T)
    return batch, metrics


def _passed(
    ids_B_S: Tensor,
    mask_B_S: Tensor,
    mask_B_T: Tensor,
    told_B_T: Tensor | None,
    networks: Networks,
    settings: PpoConfig,
) -> Sequence[Tensor]:
    """Log-probabilities, entropies, log-probabilities of the reference, and values: each B x T.

    Where the engine has told the log-probabilities, entropies are -log p of what was sampled, their estimate.
    """
    mine = ranks.share(range(settings.batch_size))
    passed_B_T_4 = torch.zeros(len(mine), mask_B_T.shape[1], 4, device=ids_B_S.device)
    rows = settings.forward_batch_size or passes(settings).rows
    with torch.no_grad():
        for places in _alike(range(settings.batch_size), mask_B_S, rows):
            layout = laid(ids_B_S[places], mask_B_S[places], mask_B_T[places], _pad_id(networks, settings))
            rows_N, columns_N = mask_B_T[places].nonzero(as_tuple=True)
            if told_B_T is None:
                new, entropy = logprobs_and_entropy(networks.policy, layout, settings.temperature)
            else:
                new = told_B_T[places][rows_N, columns_N]
                entropy = -new
            with _reference(networks) as reference:
                ref = completion_logprobs(reference, layout, settings.temperature)
            values = _values(networks.critic, layout)
            rows_N = (places - mine[0]).to(rows_N.device)[rows_N]
            passed_B_T_4[rows_N, columns_N] = torch.stack([new, entropy, ref, values], dim=1)
    return ranks.gather_rows(passed_B_T_4).unbind(dim=2)


def _pad_id(networks: Networks, settings: PpoConfig) -> int | None:
    """The padding token where rollouts share rows, else None."""
    return networks.tokenizer.pad_token_id if settings.packing else None


@contextmanager
def _reference(networks: Networks) -> Iterator[Any]:
    """The warmed-up student: a model of its own, or the policy while its adapters are off."""
    if networks.reference is not None:
        yield networks.reference
        return
    with networks.policy.module.disable_adapter():
        yield networks.policy


def _step(
    batch: Batch, index: list[int], networks: Networks, settings: PpoConfig, *, policy_learns: bool
) -> dict[str, float]:
    """One update of the critic and, after its warm-up, of the policy, from some rows of the round.

    Returns:
        This rank's part of the update's means.
    """
    means: dict[str, float] = {
        "ppo/value_loss": 0.0,
        "ppo/policy_loss": 0.0,
        "ppo/clipfrac": 0.0,
        "ppo/approx_kl": 0.0,
    }
    num_tokens = float(batch.mask_B_T[index].sum())
    rows, count = passes(settings)
    num_parts = count * ranks.size()
    pad_id = _pad_id(networks, settings)
    parts = [batch.part(places, pad_id) for places in _alike(index, batch.mask_B_S, rows)]
    # One after the other: the gradients of both are never there at once.
    for learn in (_critic_pass, _policy_pass) if policy_learns else (_critic_pass,):
        for part in parts:
            # DeepSpeed takes the mean over parts and ranks, the losses are means over tokens.
            share = len(part.layout.tokens_N) / num_tokens
            for name, value in learn(part, networks, settings, share * num_parts).items():
                means[name] += share * value
    return means


def _critic_pass(part: Part, networks: Networks, settings: PpoConfig, weight: float) -> dict[str, float]:
    """Gradients of the critic; DeepSpeed steps after the last part of a minibatch."""
    values_N = _values(networks.critic, part.layout)
    loss = value_loss(
        values_N,
        part.values_N,
        part.returns_N,
        torch.ones_like(values_N),
        settings.vf_clip_coef if settings.clip_vloss else None,
    )
    networks.critic.backward(settings.vf_coef * weight * loss)
    networks.critic.step()
    return {"ppo/value_loss": float(loss.detach())}


def _policy_pass(part: Part, networks: Networks, settings: PpoConfig, weight: float) -> dict[str, float]:
    """Gradients of the policy, in the same way."""
    logprobs_N = completion_logprobs(networks.policy, part.layout, settings.temperature)
    counts_N = torch.ones_like(logprobs_N)
    loss, clipfrac = policy_loss(logprobs_N, part.logprobs_N, part.advantages_N, counts_N, settings.clip_coef)
    networks.policy.backward(weight * loss)
    networks.policy.step()
    approx_kl = masked_mean(kl_k3(part.logprobs_N, logprobs_N.detach()), counts_N)
    return {
        "ppo/policy_loss": float(loss.detach()),
        "ppo/clipfrac": float(clipfrac),
        "ppo/approx_kl": float(approx_kl),
    }


def _values(critic: Any, layout: Layout) -> Tensor:
    """The critic's value before each completion token, N."""
    values_R_S: Tensor = critic(layout.ids_R_S, layout.mask_R_S, layout.positions_R_S)
    return values_R_S.flatten()[layout.before_N]


def masked_variance(values_B_T: Tensor, mask_B_T: Tensor) -> Tensor:
    """Variance over the tokens that count."""
    mean = masked_mean(values_B_T, mask_B_T)
    return masked_mean((values_B_T - mean) ** 2, mask_B_T) + 1e-8
