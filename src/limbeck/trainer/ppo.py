"""Proximal policy optimization of the student, in cleanrl's names, on DeepSpeed and vLLM.

One round: the sampler takes over the policy's weights; the policy answers a batch of prompts; a
score at the last token and a KL penalty at every token make the rewards; GAE makes advantages;
policy and critic, two models, learn from minibatches. Sources: Schulman et al. 2017 (arXiv
1707.06347) for the algorithm; Huang et al. 2022 and 2024 (arXiv 2403.17031) for the details that
matter with language models. Shapes: B rollouts, S all tokens, T completion tokens.
"""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.advantages import adapted_kl_coef, gae, token_rewards, whiten
from limbeck.config import Config, PpoConfig, PpoReward
from limbeck.losses import kl_k1, kl_k3, masked_mean, policy_loss, value_loss
from limbeck.progress import Progress, say
from limbeck.records import PpoPrompt
from limbeck.sampling import LiveSampler
from limbeck.trainer.engines import device, set_learning_rate, start_process, wrap
from limbeck.trainer.networks import (
    WEIGHTS,
    Scorer,
    completion_logprobs,
    load_frozen_policy,
    load_policy,
    load_tokenizer,
    save_checkpoint,
    save_weights,
)
from limbeck.trainer.rollouts import RewardModel, Rollouts, Validation, roll_out, validate


@dataclass
class Networks:
    """The four models of PPO; policy and critic are DeepSpeed engines, the other two are frozen."""

    policy: Any
    critic: Any
    reference: torch.nn.Module
    reward_model: RewardModel
    tokenizer: Any


@dataclass
class Course:
    """How far a run has come: all that a resumed one must know besides the weights."""

    update: int = 0
    kl_coef: float = 0.0
    best_agreement: float = -1.0
    best_update: int = 0
    start_agreement: float = 0.0
    start_proxy: float = 0.0
    stopped: bool = False
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class PpoRun:
    """What a run gave: the checkpoint chosen by validation agreement, and its course."""

    folder: Path
    course: Course


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

    def rows(self, index: Tensor) -> "Batch":
        """A minibatch."""
        return Batch(**{name: value[index] for name, value in vars(self).items()})


def train_ppo(
    student: Path,
    reward_folder: Path,
    sampler: LiveSampler,
    prompts: Sequence[PpoPrompt],
    validation: Sequence[PpoPrompt],
    extract: Callable[[str], str | None],
    reward: PpoReward,
    config: Config,
    folder: Path,
    resume_from: Path | None,
    save_state: Callable[[int, Path], None],
) -> PpoRun:
    """Refine a warmed-up student.

    Args:
        student: Its checkpoint folder: the policy's start, and the reference.
        reward_folder: The reward model's checkpoint folder.
        sampler: A vLLM engine opened on `student`.
        prompts: What rollouts answer.
        validation: Labelled prompts kept out of training; agreement on them chooses the checkpoint.
        extract: Finds the answer in a completion.
        reward: What a rollout earns: `model`, `agreement` or `mixed`.
        config: `ppo`, `student.dtype`, `reward.max_length` and the seed are read.
        folder: An empty folder for the result and states.
        resume_from: A training state saved by an earlier attempt.
        save_state: Called with update and folder every `checkpoint_seconds`.
    """
    settings = config.ppo
    start_process(config.seed)
    networks = _load(student, reward_folder, config)
    course = Course(kl_coef=settings.kl_coef)
    best_folder = folder / "best"
    if resume_from:
        networks.policy.load_checkpoint(str(resume_from / "policy"))
        networks.critic.load_checkpoint(str(resume_from / "critic"))
        course = Course(**json.loads((resume_from / "course.json").read_text()))
        shutil.copytree(resume_from / "best", best_folder)
        _hand_over(networks.policy.module, sampler, folder)

    name = f"ppo({reward})"
    progress = Progress(name, settings.num_updates, "updates")
    progress.resume(course.update)
    saved = time.monotonic()
    while True:
        if course.update % settings.evaluate_every == 0 or course.update == settings.num_updates:
            measured = validate(sampler, networks.reward_model, validation, extract, settings, config.seed)
            _choose(measured, networks, course, best_folder, settings, name)
        if course.stopped or course.update >= settings.num_updates:
            break
        started = time.monotonic()
        chosen, seeds = _draw(prompts, course.update, config)
        rollouts = roll_out(
            sampler,
            networks.reward_model,
            chosen,
            seeds,
            extract,
            reward,
            settings,
            networks.tokenizer.pad_token_id,
        )
        rolled = time.monotonic()
        metrics = _update(rollouts, networks, course, config)
        _hand_over(networks.policy.module, sampler, folder)
        metrics["ppo/rollout_seconds"] = rolled - started
        metrics["ppo/update_seconds"] = time.monotonic() - rolled
        course.update += 1
        course.history.append({"update": float(course.update), **metrics})
        progress.add(
            1,
            f"score {metrics['ppo/score']:.3f}, agreement {metrics['ppo/batch_agreement']:.3f}, "
            f"KL {metrics['ppo/kl']:.2f}",
        )
        if time.monotonic() - saved >= settings.deepspeed.checkpoint_seconds:
            _save(networks, course, best_folder, folder / "state", save_state)
            saved = time.monotonic()
    return PpoRun(best_folder, course)


def _load(student: Path, reward_folder: Path, config: Config) -> Networks:
    """Load the four models."""
    settings, dtype = config.ppo, config.student.dtype
    minibatch = settings.batch_size // settings.num_minibatches
    tokenizer = load_tokenizer(student)
    critic_start = reward_folder if settings.value_init == "reward" else student
    policy = wrap(
        load_policy(student, dtype, settings.deepspeed),
        settings.deepspeed,
        dtype,
        learning_rate=settings.learning_rate,
        micro_batch=minibatch,
        max_grad_norm=settings.max_grad_norm,
    )
    critic = wrap(
        Scorer(critic_start, dtype, settings.deepspeed, new_head=True),
        settings.deepspeed,
        dtype,
        learning_rate=settings.value_learning_rate,
        micro_batch=minibatch,
        max_grad_norm=settings.max_grad_norm,
    )
    reward_model = RewardModel(
        Scorer(reward_folder, dtype, None).to(device()),
        load_tokenizer(reward_folder),
        config.reward.max_length,
    )
    return Networks(policy, critic, load_frozen_policy(student, dtype).to(device()), reward_model, tokenizer)


def _draw(prompts: Sequence[PpoPrompt], update: int, config: Config) -> tuple[list[PpoPrompt], list[int]]:
    """The prompts of one round and a seed for each rollout: passes over all prompts in shuffled order.

    Nothing but the round's number decides, so a resumed run draws what an unbroken one would.
    """
    settings = config.ppo
    count = settings.batch_size // settings.samples_per_prompt
    places = range(update * count, (update + 1) * count)
    orders = {
        epoch: np.random.default_rng([config.seed, epoch]).permutation(len(prompts))
        for epoch in {place // len(prompts) for place in places}
    }
    chosen = [prompts[orders[place // len(prompts)][place % len(prompts)]] for place in places]
    repeated = [prompt for prompt in chosen for _ in range(settings.samples_per_prompt)]
    seeds = np.random.default_rng([config.seed, update, 1]).integers(2**31, size=len(repeated))
    return repeated, [int(seed) for seed in seeds]


def _update(rollouts: Rollouts, networks: Networks, course: Course, config: Config) -> dict[str, float]:
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
            minibatch = batch.rows(torch.from_numpy(index))
            learns = course.update >= settings.critic_warmup_updates
            losses.append(_step(minibatch, networks, settings, policy_learns=learns))
    for name in losses[0]:
        metrics[name] = float(np.mean([item[name] for item in losses]))
    metrics["ppo/kl_coef"] = course.kl_coef
    metrics["ppo/learning_rate"] = settings.learning_rate * rate
    if settings.adaptive_kl:
        course.kl_coef = adapted_kl_coef(course.kl_coef, metrics["ppo/kl"], settings.target_kl)
    return metrics


def _batch(
    rollouts: Rollouts, networks: Networks, kl_coef: float, settings: PpoConfig
) -> tuple[Batch, dict[str, float]]:
    """Log-probabilities, values, rewards and advantages of a round, without gradients."""
    where = device()
    ids_B_S, mask_B_S, mask_B_T = (
        tensor.to(where) for tensor in (rollouts.ids_B_S, rollouts.mask_B_S, rollouts.mask_B_T)
    )
    num_tokens = mask_B_T.shape[1]
    parts = []
    with torch.no_grad():
        for ids, mask in zip(
            ids_B_S.chunk(settings.num_minibatches), mask_B_S.chunk(settings.num_minibatches), strict=True
        ):
            new, entropy = completion_logprobs(networks.policy, ids, mask, num_tokens, settings.temperature)
            ref, _ = completion_logprobs(networks.reference, ids, mask, num_tokens, settings.temperature)
            parts.append((new, entropy, ref, _values(networks.critic, ids, mask, num_tokens)))
    logprobs_B_T, entropy_B_T, ref_logprobs_B_T, values_B_T = (
        torch.cat(part) for part in zip(*parts, strict=True)
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
    }
    batch = Batch(ids_B_S, mask_B_S, mask_B_T, logprobs_B_T, values_B_T, advantages_B_T, returns_B_T)
    return batch, metrics


def _step(batch: Batch, networks: Networks, settings: PpoConfig, *, policy_learns: bool) -> dict[str, float]:
    """One update of the critic and, after its warm-up, of the policy."""
    num_tokens = batch.mask_B_T.shape[1]
    values_B_T = _values(networks.critic, batch.ids_B_S, batch.mask_B_S, num_tokens)
    v_loss = value_loss(
        values_B_T,
        batch.values_B_T,
        batch.returns_B_T,
        batch.mask_B_T,
        settings.vf_clip_coef if settings.clip_vloss else None,
    )
    networks.critic.backward(settings.vf_coef * v_loss)
    networks.critic.step()
    metrics = {"ppo/value_loss": float(v_loss.detach())}
    if not policy_learns:
        return metrics | {"ppo/policy_loss": 0.0, "ppo/clipfrac": 0.0, "ppo/approx_kl": 0.0}
    logprobs_B_T, _ = completion_logprobs(
        networks.policy, batch.ids_B_S, batch.mask_B_S, num_tokens, settings.temperature
    )
    pg_loss, clipfrac = policy_loss(
        logprobs_B_T, batch.logprobs_B_T, batch.advantages_B_T, batch.mask_B_T, settings.clip_coef
    )
    networks.policy.backward(pg_loss)
    networks.policy.step()
    approx_kl = masked_mean(kl_k3(batch.logprobs_B_T, logprobs_B_T.detach()), batch.mask_B_T)
    return metrics | {
        "ppo/policy_loss": float(pg_loss.detach()),
        "ppo/clipfrac": float(clipfrac),
        "ppo/approx_kl": float(approx_kl),
    }


def _values(critic: Any, ids_B_S: Tensor, mask_B_S: Tensor, num_tokens: int) -> Tensor:
    """The critic's value before each completion token, B x T."""
    values_B_S: Tensor = critic(ids_B_S, mask_B_S)
    return values_B_S[:, -num_tokens - 1 : -1]


def _choose(
    measured: Validation,
    networks: Networks,
    course: Course,
    best_folder: Path,
    settings: PpoConfig,
    name: str,
) -> None:
    """Keep the policy if it agrees best so far; stop the run if it games the reward model.

    Hacking is when the proxy reward has risen since the start while agreement has fallen by more
    than `hacking_drop`: the reward model likes what the labels do not.
    """
    if course.update == 0:
        course.start_agreement, course.start_proxy = measured.agreement, measured.proxy
    if measured.agreement > course.best_agreement:
        course.best_agreement, course.best_update = measured.agreement, course.update
        save_checkpoint(networks.policy.module, networks.tokenizer, best_folder)
    fallen = course.start_agreement - measured.agreement
    hacked = measured.proxy > course.start_proxy and fallen > settings.hacking_drop
    if course.history:
        course.history[-1] |= {
            "ppo/validation_agreement": measured.agreement,
            "ppo/validation_proxy": measured.proxy,
            "ppo/validation_length": measured.length,
        }
    else:
        course.history.append(
            {
                "update": 0.0,
                "ppo/validation_agreement": measured.agreement,
                "ppo/validation_proxy": measured.proxy,
                "ppo/validation_length": measured.length,
            }
        )
    say(
        f"{name}: update {course.update}: validation agreement {measured.agreement:.3f} "
        f"(best {course.best_agreement:.3f}), proxy reward {measured.proxy:.3f}"
    )
    if hacked and settings.stop_on_hacking:
        course.stopped = True
        say(
            f"{name}: stopped at update {course.update}: the proxy reward rose while agreement fell by "
            f"{fallen:.3f} (reward hacking); the policy of update {course.best_update} is kept"
        )


def _hand_over(policy: torch.nn.Module, sampler: LiveSampler, folder: Path) -> None:
    """Give the sampler the policy's newest weights."""
    weights = folder / "weights"
    save_weights(policy, weights / WEIGHTS)
    sampler.load_weights(weights)


def _save(
    networks: Networks,
    course: Course,
    best_folder: Path,
    state: Path,
    save_state: Callable[[int, Path], None],
) -> None:
    """Save all that is needed to go on from here."""
    networks.policy.save_checkpoint(str(state / "policy"))
    networks.critic.save_checkpoint(str(state / "critic"))
    shutil.copytree(best_folder, state / "best")
    (state / "course.json").write_text(json.dumps(vars(course)))
    save_state(course.update, state)
    shutil.rmtree(state)


def masked_variance(values_B_T: Tensor, mask_B_T: Tensor) -> Tensor:
    """Variance over the tokens that count."""
    mean = masked_mean(values_B_T, mask_B_T)
    return masked_mean((values_B_T - mean) ** 2, mask_B_T) + 1e-8
