"""RLOO and GRPO: TRL's trainers, which compare the answers to one prompt with one another and need no critic.

TRL makes advantages, losses and updates; the rest is as in `ppo`: vLLM answers with the policy's newest
weights, the same scores, the same choice of the checkpoint. The sampler is ours and not TRL's: TRL's vLLM
dies at its first hand-over of weights on CPUs, would be a second engine beside the one that validates, and
draws from generators that no training state holds. Sources: Ahmadian et al. 2024 (arXiv 2402.14740) for
RLOO, Shao et al. 2024 (arXiv 2402.03300) for GRPO. Shapes: B rollouts, T completion tokens.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import datasets
import torch
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from limbeck.config import Config, PpoReward
from limbeck.errors import EngineError
from limbeck.progress import Progress
from limbeck.records import PpoPrompt
from limbeck.sampling import LiveSampler
from limbeck.saver import Saver
from limbeck.trainer.course import BEST, Course, PpoRun, choose, load_course, save_course
from limbeck.trainer.engines import deepspeed_json, start_process
from limbeck.trainer.networks import WEIGHTS, load_policy, load_tokenizer, save_weights
from limbeck.trainer.rollouts import (
    RewardModel,
    Rollouts,
    draw,
    load_reward_model,
    roll_out,
    validate,
)


def train_group_relative(
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
    """Refine a warmed-up student with `ppo.algorithm`: `rloo` or `grpo`.

    Args and errors are those of `limbeck.trainer.ppo.train_ppo`, and one more:

    Raises:
        EngineError: when the trainer does not run under DeepSpeed.
    """
    settings = config.ppo
    start_process(config.seed, settings.deepspeed)
    tokenizer = load_tokenizer(student)
    policy = load_policy(student, config.student.dtype, settings.deepspeed)
    best_folder = folder / BEST
    course = load_course(resume_from, best_folder) if resume_from else Course(kl_coef=settings.kl_coef)

    def write_state() -> Path:
        trainer._save_checkpoint(policy, trial=None)
        return folder / "trainer" / f"checkpoint-{trainer.state.global_step}"

    rounds = _Rounds(
        policy=policy,
        tokenizer=tokenizer,
        sampler=sampler,
        reward_model=load_reward_model(reward_folder, config),
        prompts=prompts,
        validation=validation,
        agrees=agrees,
        reward=reward,
        config=config,
        folder=folder,
        saver=saver,
        course=course,
        write_state=write_state,
    )
    arguments = _arguments(config, folder / "trainer")
    given = {
        "model": policy,
        "processing_class": tokenizer,
        "reward_funcs": rounds.scores,
        "train_dataset": _in_order(prompts, config),
        "callbacks": [rounds],
    }
    trainer: _Rloo | _Grpo
    if settings.algorithm == "rloo":
        rloo = RLOOConfig(**arguments, normalize_advantages=settings.norm_adv)
        trainer = _Rloo(rounds, args=rloo, **given)
    else:
        # Each token of an update counts alike, as in our PPO; GRPO's first form favours short completions.
        # Source: Yu et al. 2025 (arXiv 2503.14476), section 3.3.
        grpo = GRPOConfig(
            **arguments,
            loss_type="dapo",
            importance_sampling_level="token",
            scale_rewards="group" if settings.norm_adv else "none",
        )
        trainer = _Grpo(rounds, args=grpo, **given)
    trainer.remove_callback(PrinterCallback)
    if not trainer.is_deepspeed_enabled:
        raise EngineError(
            f"{settings.algorithm} does not run under DeepSpeed",
            remedy="Start it with torchrun, not `accelerate launch --cpu`",
        )
    trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    # With ZeRO-3 the trainer leaves a process-wide mark that splits every model loaded later.
    unset_hf_deepspeed_config()
    return PpoRun(best_folder, course)


def _arguments(config: Config, folder: Path) -> dict[str, Any]:
    """What RLOO and GRPO are told alike, in TRL's words: a round of rollouts is its generation batch."""
    settings = config.ppo
    accumulation = settings.batch_size // settings.num_minibatches // settings.rows_at_once
    return {
        "output_dir": str(folder),
        "use_cpu": not torch.cuda.is_available(),
        "bf16": config.student.dtype == "bfloat16",
        "seed": config.seed,
        "data_seed": config.seed,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "linear" if settings.anneal_lr else "constant",
        "weight_decay": 0.0,
        "max_grad_norm": settings.max_grad_norm,
        "max_steps": settings.num_updates * _steps(config),
        "per_device_train_batch_size": settings.rows_at_once,
        "gradient_accumulation_steps": accumulation,
        "generation_batch_size": settings.batch_size,
        "num_generations": settings.samples_per_prompt,
        "num_iterations": settings.num_ppo_epochs,
        "epsilon": settings.clip_coef,
        "beta": settings.kl_coef,
        "temperature": settings.temperature,
        "max_completion_length": settings.max_tokens,
        "shuffle_dataset": False,  # its rows are the rounds, in order
        "gradient_checkpointing": settings.deepspeed.gradient_checkpointing,
        "deepspeed": deepspeed_json(
            settings.deepspeed,
            config.student.dtype,
            micro_batch=settings.rows_at_once,
            accumulation=accumulation,
            max_grad_norm=settings.max_grad_norm,
        ),
        "optim": "adamw_torch",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def _steps(config: Config) -> int:
    """Updates of the weights in one round."""
    return config.ppo.num_minibatches * config.ppo.num_ppo_epochs


def _in_order(prompts: Sequence[PpoPrompt], config: Config) -> datasets.Dataset:
    """The prompts of all rounds, one round after another; TRL repeats each `samples_per_prompt` times."""
    settings = config.ppo
    return datasets.Dataset.from_list(
        [
            {"prompt": [{"role": "user", "content": prompt.message}]}
            for update in range(settings.num_updates)
            for prompt in draw(prompts, update, config)[0][:: settings.samples_per_prompt]
        ]
    )


@dataclass(eq=False)
class _Rounds(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """What is done between TRL's updates: answering and scoring, validation, history and states."""

    policy: Any
    tokenizer: Any
    sampler: LiveSampler
    reward_model: RewardModel
    prompts: Sequence[PpoPrompt]
    validation: Sequence[PpoPrompt]
    agrees: Callable[[str, str], bool]
    reward: PpoReward
    config: Config
    folder: Path
    saver: Saver
    course: Course
    write_state: Callable[[], Path]
    """Writes weights, optimizer, scheduler, generators and the place in the data into a folder."""
    steps: list[Mapping[str, float]] = field(default_factory=list)
    """What TRL logged of each update of this round."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self.name = f"ppo({self.reward})"
        self.progress = Progress(self.name, self.config.ppo.num_updates, "updates")
        self.progress.resume(self.course.update)
        self.saver.begin(self.course.update)
        self.hand_over()

    def answer(self) -> list[list[int]]:
        """The token ids of a round's completions; they are scored here as well."""
        self.answering = time.monotonic()
        chosen, seeds = draw(self.prompts, self.course.update, self.config)
        with self.saver.interruptible(self.course.update, self.save):
            self.rollouts: Rollouts = roll_out(
                self.sampler,
                self.reward_model,
                chosen,
                seeds,
                self.agrees,
                self.reward,
                self.config.ppo,
                self.tokenizer.pad_token_id,
            )
        self.learning = time.monotonic()
        # TRL mixes the rollouts by torch's generator, which vLLM draws from too: the round alone decides.
        torch.manual_seed(seeds[0])
        return self.rollouts.completions()

    def scores(self, **_: object) -> list[float]:
        """What the completions that were just answered earn: TRL's reward function."""
        earned: list[float] = self.rollouts.scores_B.tolist()
        return earned

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float],
        **_: object,
    ) -> None:
        if "loss" in logs and not self.course.stopped:
            self.steps.append(logs)
            if state.global_step % _steps(self.config) == 0:
                self.end_round()
        # Also where a resumed run finds at its start that it is to end: TRL looks after an update only.
        control.should_training_stop |= self.course.stopped

    def end_round(self) -> None:
        """Note how the round went, save if it is time, and let the sampler and the validation follow."""
        course = self.course
        course.update += 1
        entry = self.entry()
        course.history.append({"update": float(course.update), **entry})
        self.steps = []
        self.progress.add(
            1,
            f"score {entry['ppo/score']:.3f}, agreement {entry['ppo/batch_agreement']:.3f}, "
            f"entropy {entry['ppo/entropy']:.2f}",
        )
        if course.update < self.config.ppo.num_updates and self.saver.due():
            self.save()
        self.hand_over()

    def hand_over(self) -> None:
        """Give the sampler the newest weights, and validate them if it is their turn."""
        settings, course = self.config.ppo, self.course
        started, measured = time.monotonic(), None
        save_weights(self.policy, self.folder / "weights" / WEIGHTS)
        with self.saver.interruptible(course.update, self.save):
            self.sampler.load_weights(self.folder / "weights")
            self.handover_seconds = time.monotonic() - started
            if course.update % settings.evaluate_every == 0 or course.update == settings.num_updates:
                measured = validate(
                    self.sampler, self.reward_model, self.validation, self.agrees, settings, self.config.seed
                )
        if measured:
            choose(measured, self.policy, self.tokenizer, course, self.folder / BEST, settings, self.name)

    def save(self) -> None:
        """Save all that is needed to go on from the end of the newest round."""
        state = self.write_state()
        save_course(self.course, self.folder / BEST, state)
        self.saver.save(self.course.update, state)

    def entry(self) -> dict[str, float]:
        """A round's metrics; nan where the algorithm has none. Each is explained in docs/metrics.md.

        TRL gives KL as a mean over tokens: RLOO of all rollouts by k1, GRPO of the first update's by k3.
        """
        settings, rollouts, first = self.config.ppo, self.rollouts, self.steps[0]
        score, length = first["reward"], float(rollouts.mask_B_T.sum(dim=1).mean())
        is_rloo, kl = settings.algorithm == "rloo", first.get("kl", math.nan) * length
        return {
            "ppo/score": score,
            "ppo/proxy": float(rollouts.proxy_B.mean()),
            "ppo/reward": score - (settings.kl_coef and settings.kl_coef * kl) if is_rloo else math.nan,
            "ppo/batch_agreement": rollouts.agreement,
            "ppo/kl": kl if is_rloo else math.nan,
            "ppo/kl_k3": math.nan if is_rloo else kl,
            "ppo/kl_coef": settings.kl_coef,
            "ppo/entropy": first["entropy"],
            "ppo/length": length,
            "ppo/cut": rollouts.cut,
            "ppo/policy_loss": fmean(step["loss"] for step in self.steps),
            "ppo/value_loss": math.nan,
            "ppo/explained_variance": math.nan,
            "ppo/clipfrac": math.nan,
            "ppo/approx_kl": math.nan,
            "ppo/learning_rate": first["learning_rate"],
            "ppo/handover_seconds": self.handover_seconds,
            "ppo/rollout_seconds": self.learning - self.answering,
            "ppo/update_seconds": time.monotonic() - self.learning,
        }


class _Rloo(RLOOTrainer):  # type: ignore[misc]
    """TRL's RLOO, answered by our sampler."""

    def __init__(self, rounds: _Rounds, **given: Any) -> None:
        self.rounds = rounds
        super().__init__(**given)

    def _generate_single_turn(self, *_: object) -> list[list[int]]:
        return self.rounds.answer()


class _Grpo(GRPOTrainer):  # type: ignore[misc]
    """TRL's GRPO, answered by our sampler; it computes the log-probabilities itself."""

    def __init__(self, rounds: _Rounds, **given: Any) -> None:
        self.rounds = rounds
        super().__init__(**given)

    def _generate_single_turn(self, *_: object) -> tuple[list[list[int]], None]:
        return self.rounds.answer(), None
