"""Proximal policy optimization of the student, in cleanrl's names, on DeepSpeed.

One round: the sampler takes over the policy's weights; the policy answers a batch of prompts; a
score at the last token and a KL penalty at every token make the rewards; GAE makes advantages;
policy and critic, two models, learn from minibatches. Sources: Schulman et al. 2017 (arXiv
1707.06347) for the algorithm; Huang et al. 2022 and 2024 (arXiv 2403.17031) for the details that
matter with language models. Shapes: B rollouts, S all tokens, T completion tokens.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from limbeck.config import Config, PpoReward
from limbeck.jobs import Course, PpoRun
from limbeck.judging import RolloutJudge
from limbeck.progress import Progress
from limbeck.records import PpoPrompt
from limbeck.sampling import LiveSampler
from limbeck.saver import StateSaver
from limbeck.trainer import ranks
from limbeck.trainer.course import BEST, choose, load_course, save_course
from limbeck.trainer.engines import device, start_process, wrap
from limbeck.trainer.handover import WeightsFile
from limbeck.trainer.networks import (
    WEIGHTS,
    Scorer,
    load_frozen_policy,
    load_policy,
    load_tokenizer,
    share_frozen,
)
from limbeck.trainer.packing import check_packable
from limbeck.trainer.ppo_update import Networks, passes, update
from limbeck.trainer.randomness import load_random, save_random
from limbeck.trainer.rollouts import (
    Probe,
    Rollout,
    draw,
    load_reward_model,
    measure,
    probe,
    repeated,
    roll_out,
    stack,
)
from limbeck.trainer.states import load_engine, save_engine


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
    saver: StateSaver,
    judge: RolloutJudge | None = None,
) -> PpoRun:
    """Refine a warmed-up student.

    Args:
        student: Its checkpoint folder: the policy's start, and the reference.
        reward_folder: The reward model's checkpoint folder.
        sampler: Answers prompts; opened on `student`.
        prompts: What rollouts answer.
        validation: Labelled prompts kept out of training; agreement on them chooses the checkpoint.
        agrees: Whether a completion's answer is the same as a label.
        reward: What a rollout earns: `model`, `agreement`, `mixed` or `judge`.
        config: `ppo`, `task`, the models' number types and chats, `reward.max_length` and the seed are read.
        folder: An empty folder for the result and states.
        resume_from: A training state saved by an earlier attempt.
        saver: Takes training states; already entered.
        judge: Of the reward `judge`.

    Raises:
        StoppedError: after SIGTERM, when the state is stored.
    """
    settings = config.ppo
    start_process(config.seed, settings.deepspeed)
    networks = _load(student, reward_folder, config)
    course = Course(kl_coef=settings.kl_coef)
    best_folder = folder / BEST
    if resume_from:
        load_engine(networks.policy, resume_from / "policy")
        load_engine(networks.critic, resume_from / "critic")
        course = load_course(resume_from, best_folder)
        load_random(resume_from)

    name = f"ppo({reward})"
    progress = Progress(name, settings.num_updates, "updates")
    progress.resume(course.update)

    def save() -> None:
        _save(networks, course, best_folder, folder / "states", saver)

    weights = WeightsFile(folder / "weights" / WEIGHTS)
    saver.begin(course.update)
    while True:
        started, probes = time.monotonic(), None
        weights.write(networks.policy.module)
        # What comes before the update changes nothing in a state, so SIGTERM need not wait for its end.
        with saver.interruptible(course.update, save):
            sampler.load_weights(folder / "weights")
            handed_over = time.monotonic()
            if course.update % settings.evaluate_every == 0 or course.update == settings.num_updates:
                chosen, seeds = repeated(validation, config)
                probes = probe(
                    sampler,
                    networks.reward_model,
                    ranks.share(chosen),
                    ranks.share(seeds),
                    agrees,
                    settings.max_tokens,
                )
        if probes is not None:
            measured = measure([Probe(*item) for item in ranks.gather(probes)])
            choose(measured, networks.policy.module, networks.tokenizer, course, best_folder, settings, name)
        if course.stopped or course.update >= settings.num_updates:
            break
        with saver.interruptible(course.update, save):
            answering = time.monotonic()
            chosen, seeds = draw(prompts, course.update, config)
            mine = roll_out(
                sampler,
                networks.reward_model,
                ranks.share(chosen),
                ranks.share(seeds),
                agrees,
                reward,
                settings,
                judge,
            )
        answers = [Rollout(*item) for item in ranks.gather(mine)]
        rollouts = stack(answers, settings.missing_eos_penalty, networks.tokenizer.pad_token_id)
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
    """Load the four models.

    With LoRA they share what stays as it is; adapters that are switched off leave the reference.
    """
    settings, dtype = config.ppo, config.student.dtype
    adapted = settings.deepspeed.lora_rank > 0
    from_reward = settings.value_init == "reward"
    reward_model = load_reward_model(reward_folder, config)
    policy = load_policy(student, dtype, settings.deepspeed)
    critic = Scorer(reward_folder if from_reward else student, dtype, settings.deepspeed, new_head=True)
    if settings.packing:
        for model in (policy, critic.model):
            check_packable(model, "ppo.packing")
    if adapted and settings.deepspeed.zero_stage < 3:  # which splits them
        share_frozen(critic.model, reward_model.scorer.model if from_reward else policy.to(device()))
    return Networks(
        _learner(policy, settings.learning_rate, config),
        _learner(critic, settings.value_learning_rate, config),
        None if adapted else load_frozen_policy(student, dtype).to(device()),
        reward_model,
        load_tokenizer(student),
    )


def _learner(model: nn.Module, learning_rate: float, config: Config) -> Any:
    """A model as a DeepSpeed engine."""
    settings = config.ppo
    micro_batch, accumulation = passes(settings)
    return wrap(
        model,
        settings.deepspeed,
        config.student.dtype,
        learning_rate=learning_rate,
        micro_batch=micro_batch,
        accumulation=accumulation,
        max_grad_norm=settings.max_grad_norm,
    )


def _save(networks: Networks, course: Course, best_folder: Path, states: Path, saver: StateSaver) -> None:
    """Save all that is needed to go on from here."""
    state = states / str(course.update)
    save_engine(networks.policy, state / "policy")
    save_engine(networks.critic, state / "critic")
    if ranks.leads():
        save_course(course, best_folder, state)
        save_random(state)
    saver.save(course.update, state)
