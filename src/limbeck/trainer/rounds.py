"""What is done around the updates of TRL's trainers: answers and scores, validation, history and states.

Shapes: B rollouts, T completion tokens.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from limbeck.config import Config, PpoReward
from limbeck.jobs import Course
from limbeck.judging import RolloutJudge
from limbeck.progress import Progress
from limbeck.records import PpoPrompt
from limbeck.sampling import LiveSampler
from limbeck.saver import StateSaver
from limbeck.trainer.course import BEST, choose, save_course
from limbeck.trainer.engines import keep_gradients
from limbeck.trainer.handover import WeightsFile
from limbeck.trainer.networks import WEIGHTS
from limbeck.trainer.randomness import load_random, save_random
from limbeck.trainer.rollouts import RewardModel, draw, measure, probe, repeated, roll_out, stack
from limbeck.trainer.states import load_engine, save_engine

ENGINE = "engine"
"""Of a state: weights and moments."""


def num_steps(config: Config) -> int:
    """Updates of the weights in one round."""
    return config.ppo.num_minibatches * config.ppo.num_ppo_epochs


@dataclass(eq=False)
class Rounds(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """One run of RLOO or GRPO, seen from between TRL's updates. Made by `train_group_relative`."""

    policy: Any
    tokenizer: Any
    sampler: LiveSampler
    reward_model: RewardModel
    prompts: Sequence[PpoPrompt]
    validation: Sequence[PpoPrompt]
    agrees: Callable[[str, str], bool]
    reward: PpoReward
    judge: RolloutJudge | None
    config: Config
    folder: Path
    saver: StateSaver
    course: Course
    resume_from: Path | None
    engine_of: Callable[[], Any]
    """Gives TRL's DeepSpeed engine, which it makes when the training begins."""
    weights: WeightsFile = field(init=False)
    told_B_T: Tensor | None = None
    """Log-probabilities of this round's completions by the engine, until they are asked for."""
    steps: list[Mapping[str, float]] = field(default_factory=list)
    """What TRL logged of each update of this round."""

    def __post_init__(self) -> None:
        """Say where the engine finds the weights."""
        self.weights = WeightsFile(self.folder / "weights" / WEIGHTS)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Say what is there already, and give the sampler the weights; the clock of the saver starts."""
        self.name = f"ppo({self.reward})"
        self.progress = Progress(self.name, self.config.ppo.num_updates, "updates")
        keep_gradients(self.engine_of())
        if self.resume_from:
            load_engine(self.engine_of(), self.resume_from / ENGINE)
            load_random(self.resume_from)
        self.progress.resume(self.course.update)
        self.saver.begin(self.course.update)
        self.hand_over()

    def prompt_ids(self, prompts: Sequence[Sequence[Mapping[str, str]]]) -> list[list[int]]:
        """The token ids that the engine samples from: TRL's own would know no system prompt of the task."""
        return [self.sampler.prompt_ids(message["content"]) for (message,) in prompts]

    def answer(self) -> list[list[int]]:
        """The token ids of a round's completions; they are scored here as well."""
        self.answering = time.monotonic()
        chosen, seeds = draw(self.prompts, self.course.update, self.config)
        with self.saver.interruptible(self.course.update, self.save):
            answers = roll_out(
                self.sampler,
                self.reward_model,
                chosen,
                seeds,
                self.agrees,
                self.reward,
                self.config.ppo,
                self.judge,
            )
        settings = self.config.ppo
        self.rollouts = stack(answers, settings.missing_eos_penalty, self.tokenizer.pad_token_id)
        self.told_B_T = self.rollouts.logprobs_B_T
        self.learning = time.monotonic()
        # TRL mixes the rollouts by torch's generator, which vLLM draws from too: the round alone decides.
        torch.manual_seed(seeds[0])
        return self.rollouts.completions()

    def told(self) -> Tensor | None:
        """The engine's log-probabilities of a round, B x T, once; None where it was not to tell them."""
        told_B_T, self.told_B_T = self.told_B_T, None
        return told_B_T

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
        """Take what TRL says after each update; the last one of a round ends it."""
        if "loss" in logs and not self.course.stopped:
            self.steps.append(logs)
            if state.global_step % num_steps(self.config) == 0:
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
        self.weights.write(self.policy)
        with self.saver.interruptible(course.update, self.save):
            self.sampler.load_weights(self.folder / "weights")
            self.handover_seconds = time.monotonic() - started
            if course.update % settings.evaluate_every == 0 or course.update == settings.num_updates:
                asked, seeds = repeated(self.validation, self.config)
                measured = measure(
                    probe(self.sampler, self.reward_model, asked, seeds, self.agrees, settings.max_tokens)
                )
        if measured:
            choose(measured, self.policy, self.tokenizer, course, self.folder / BEST, settings, self.name)

    def save(self) -> None:
        """Save all that is needed to go on from the end of the newest round."""
        state = self.folder / "states" / str(self.course.update)
        save_engine(self.engine_of(), state / ENGINE)
        save_random(state)
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
            **rollouts.judged,
        }
