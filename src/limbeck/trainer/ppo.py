"""Proximal policy optimization of the student, in cleanrl's names, on DeepSpeed and vLLM.

One round: the sampler takes over the policy's weights; the policy answers a batch of prompts; a
score at the last token and a KL penalty at every token make the rewards; GAE makes advantages;
policy and critic, two models, learn from minibatches. Sources: Schulman et al. 2017 (arXiv
1707.06347) for the algorithm; Huang et al. 2022 and 2024 (arXiv 2403.17031) for the details that
matter with language models. Shapes: B rollouts, S all tokens, T completion tokens.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from limbeck.config import Config, PpoConfig, PpoReward
from limbeck.hacking import hacked, probes
from limbeck.progress import Progress, say
from limbeck.records import PpoPrompt
from limbeck.sampling import LiveSampler
from limbeck.saver import Saver
from limbeck.trainer.engines import device, start_process, wrap
from limbeck.trainer.networks import (
    WEIGHTS,
    Scorer,
    load_frozen_policy,
    load_policy,
    load_tokenizer,
    save_checkpoint,
    save_weights,
)
from limbeck.trainer.ppo_update import Course, Networks, update
from limbeck.trainer.randomness import load_random, save_random
from limbeck.trainer.rollouts import RewardModel, Validation, roll_out, validate


@dataclass(frozen=True)
class PpoRun:
    """What a run gave: the checkpoint chosen by validation agreement, and its course."""

    folder: Path
    course: Course


def train_ppo(
    student: Path,
    reward_folder: Path,
    sampler: LiveSampler,
    prompts: Sequence[PpoPrompt],
    validation: Sequence[PpoPrompt],
    agrees: Callable[[str, str], bool],
    reward: PpoReward,
    config: Config,
    folder: Path,
    resume_from: Path | None,
    saver: Saver,
) -> PpoRun:
    """Refine a warmed-up student.

    Args:
        student: Its checkpoint folder: the policy's start, and the reference.
        reward_folder: The reward model's checkpoint folder.
        sampler: A vLLM engine opened on `student`.
        prompts: What rollouts answer.
        validation: Labelled prompts kept out of training; agreement on them chooses the checkpoint.
        agrees: Whether a completion's answer is the same as a label.
        reward: What a rollout earns: `model`, `agreement` or `mixed`.
        config: `ppo`, `student.dtype`, `reward.max_length` and the seed are read.
        folder: An empty folder for the result and states.
        resume_from: A training state saved by an earlier attempt.
        saver: Takes training states; already entered.

    Raises:
        StoppedError: after SIGTERM, when the state is stored.
    """
    settings = config.ppo
    start_process(config.seed, settings.deepspeed)
    networks = _load(student, reward_folder, config)
    course = Course(kl_coef=settings.kl_coef)
    best_folder = folder / "best"
    if resume_from:
        networks.policy.load_checkpoint(str(resume_from / "policy"))
        networks.critic.load_checkpoint(str(resume_from / "critic"))
        course = Course(**json.loads((resume_from / "course.json").read_text()))
        shutil.copytree(resume_from / "best", best_folder)
        load_random(resume_from)

    name = f"ppo({reward})"
    progress = Progress(name, settings.num_updates, "updates")
    progress.resume(course.update)

    def save() -> None:
        _save(networks, course, best_folder, folder / "states", saver)

    saver.begin(course.update)
    while True:
        started, measured = time.monotonic(), None
        save_weights(networks.policy.module, folder / "weights" / WEIGHTS)
        # What comes before the update changes nothing in a state, so SIGTERM need not wait for its end.
        with saver.interruptible(course.update, save):
            sampler.load_weights(folder / "weights")
            handed_over = time.monotonic()
            if course.update % settings.evaluate_every == 0 or course.update == settings.num_updates:
                measured = validate(sampler, networks.reward_model, validation, agrees, settings, config.seed)
        if measured:
            _choose(measured, networks, course, best_folder, settings, name)
        if course.stopped or course.update >= settings.num_updates:
            break
        with saver.interruptible(course.update, save):
            answering = time.monotonic()
            chosen, seeds = _draw(prompts, course.update, config)
            rollouts = roll_out(
                sampler,
                networks.reward_model,
                chosen,
                seeds,
                agrees,
                reward,
                settings,
                networks.tokenizer.pad_token_id,
            )
        learning = time.monotonic()
        metrics = update(rollouts, networks, course, config)
        metrics["ppo/handover_seconds"] = handed_over - started
        metrics["ppo/rollout_seconds"] = learning - answering
        metrics["ppo/update_seconds"] = time.monotonic() - learning
        course.update += 1
        course.history.append({"update": float(course.update), **metrics})
        progress.add(
            1,
            f"score {metrics['ppo/score']:.3f}, agreement {metrics['ppo/batch_agreement']:.3f}, "
            f"KL {metrics['ppo/kl']:.2f}",
        )
        if course.update < settings.num_updates and saver.due():
            save()
    return PpoRun(best_folder, course)


def _load(student: Path, reward_folder: Path, config: Config) -> Networks:
    """Load the four models."""
    settings, dtype = config.ppo, config.student.dtype
    accumulation = settings.batch_size // settings.num_minibatches // settings.rows_at_once
    tokenizer = load_tokenizer(student)
    critic_start = reward_folder if settings.value_init == "reward" else student
    policy = wrap(
        load_policy(student, dtype, settings.deepspeed),
        settings.deepspeed,
        dtype,
        learning_rate=settings.learning_rate,
        micro_batch=settings.rows_at_once,
        accumulation=accumulation,
        max_grad_norm=settings.max_grad_norm,
    )
    critic = wrap(
        Scorer(critic_start, dtype, settings.deepspeed, new_head=True),
        settings.deepspeed,
        dtype,
        learning_rate=settings.value_learning_rate,
        micro_batch=settings.rows_at_once,
        accumulation=accumulation,
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


def _choose(
    measured: Validation,
    networks: Networks,
    course: Course,
    best_folder: Path,
    settings: PpoConfig,
    name: str,
) -> None:
    """Keep the policy if it agrees best so far; stop the run if it games the reward model.

    Hacking is when the proxy reward has risen while agreement has fallen by more than `hacking_drop`: the
    reward model likes what the labels do not. See `limbeck.hacking`.
    """
    if course.update == 0:
        course.start_agreement = measured.agreement
    if measured.agreement > course.best_agreement:
        course.best_agreement, course.best_update = measured.agreement, course.update
        shutil.rmtree(best_folder, ignore_errors=True)  # states hold links to its files
        save_checkpoint(networks.policy.module, networks.tokenizer, best_folder)
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
        f"(best {course.best_agreement:.3f}), proxy reward {measured.proxy:.3f}, "
        f"{measured.length:.1f} tokens"
    )
    signs = hacked(probes(course.history), settings.hacking_drop)
    if signs and settings.stop_on_hacking:
        course.stopped = True
        say(
            f"{name}: stopped at update {course.update}: {signs} (reward hacking); the policy of update "
            f"{course.best_update} is kept"
        )


def _save(networks: Networks, course: Course, best_folder: Path, states: Path, saver: Saver) -> None:
    """Save all that is needed to go on from here."""
    state = states / str(course.update)
    networks.policy.save_checkpoint(str(state / "policy"))
    networks.critic.save_checkpoint(str(state / "critic"))
    shutil.copytree(best_folder, state / "best", copy_function=os.link)
    (state / "course.json").write_text(json.dumps(vars(course)))
    save_random(state)
    saver.save(course.update, state)
