"""RLOO and GRPO: TRL's trainers, which compare the answers to one prompt with one another and need no critic.

TRL makes advantages, losses and updates; the rest is as in `ppo`: a sampler answers with the newest
weights, the same scores, the same choice of the checkpoint. The sampler is ours and not TRL's: TRL's vLLM
dies at its first hand-over of weights on CPUs, would be a second engine beside the one that validates, and
draws from generators that no training state holds. A resumed run is a trainer of the rounds that are left, as
in `sft`. Sources: Ahmadian et al. 2024 (arXiv 2402.14740) for
RLOO, Shao et al. 2024 (arXiv 2402.03300) for GRPO.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import Tensor
from transformers import PrinterCallback, Trainer
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from limbeck.config import Config, PpoReward
from limbeck.errors import EngineError
from limbeck.jobs import Course, PpoRun
from limbeck.judging import RolloutJudge
from limbeck.records import PpoPrompt
from limbeck.sampling import LiveSampler
from limbeck.saver import StateSaver
from limbeck.trainer.course import BEST, load_course
from limbeck.trainer.engines import advanced, deepspeed_json, start_process
from limbeck.trainer.logprobs import batch_logprobs
from limbeck.trainer.networks import load_policy, load_tokenizer
from limbeck.trainer.packing import check_packable
from limbeck.trainer.rollouts import draw, load_reward_model
from limbeck.trainer.rounds import Rounds, num_steps


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
    saver: StateSaver,
    judge: RolloutJudge | None = None,
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
    if settings.packing:
        check_packable(policy, "ppo.packing")
    best_folder = folder / BEST
    course = load_course(resume_from, best_folder) if resume_from else Course(kl_coef=settings.kl_coef)
    done = course.update

    rounds = Rounds(
        policy=policy,
        tokenizer=tokenizer,
        sampler=sampler,
        reward_model=load_reward_model(reward_folder, config),
        prompts=prompts,
        validation=validation,
        agrees=agrees,
        reward=reward,
        judge=judge,
        config=config,
        folder=folder,
        saver=saver,
        course=course,
        resume_from=resume_from,
        engine_of=lambda: trainer.model_wrapped,
    )
    arguments = _arguments(config, done, folder / "trainer")
    given = {
        "model": policy,
        "processing_class": tokenizer,
        "reward_funcs": rounds.scores,
        "train_dataset": _in_order(prompts, done, config),
        "callbacks": [rounds],
    }
    trainer: _Rloo | _Grpo
    if settings.algorithm == "rloo":
        rloo = RLOOConfig(**arguments, normalize_advantages=settings.norm_adv)
        trainer = _Rloo(rounds, done, args=rloo, **given)
    else:
        # Each token of an update counts alike, as in our PPO; GRPO's first form favours short completions.
        # Source: Yu et al. 2025 (arXiv 2503.14476), section 3.3.
        grpo = GRPOConfig(
            **arguments,
            loss_type="dapo",
            importance_sampling_level="token",
            scale_rewards="group" if settings.norm_adv else "none",
        )
        trainer = _Grpo(rounds, done, args=grpo, **given)
    trainer.remove_callback(PrinterCallback)
    if not trainer.is_deepspeed_enabled:
        raise EngineError(
            f"{settings.algorithm} does not run under DeepSpeed",
            remedy="Start it with torchrun, not `accelerate launch --cpu`",
        )
    trainer.train()
    # With ZeRO-3 the trainer leaves a process-wide mark that splits every model loaded later.
    unset_hf_deepspeed_config()
    return PpoRun(best_folder, course)


def _arguments(config: Config, done: int, folder: Path) -> dict[str, Any]:
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
        "max_steps": (settings.num_updates - done) * num_steps(config),
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
        "optim": "adamw_torch_fused",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def _in_order(prompts: Sequence[PpoPrompt], done: int, config: Config) -> datasets.Dataset:
    """The prompts of the rounds that are left, in order; TRL repeats each `samples_per_prompt` times."""
    settings = config.ppo
    return datasets.Dataset.from_list(
        [
            {"prompt": [{"role": "user", "content": prompt.message}]}
            for update in range(done, settings.num_updates)
            for prompt in draw(prompts, update, config)[0][:: settings.samples_per_prompt]
        ]
    )


Scored = tuple[Tensor, Tensor | None, Tensor | None]
"""Log-probabilities and entropies of completion tokens, B x T, and an auxiliary loss, as TRL gives them."""


class _Answered(Trainer):  # type: ignore[misc]  # transformers is untyped here
    """What TRL's trainers get from us: rounds that our sampler answers, and passes with little padding."""

    def __init__(self, rounds: Rounds, done: int, **given: Any) -> None:
        self.rounds, self.done = rounds, done
        super().__init__(**given)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """That of all rounds, where it was after those that are done."""
        steps = num_steps(self.rounds.config)
        made = super().create_scheduler(self.rounds.config.ppo.num_updates * steps, optimizer)
        return advanced(made, self.done * steps)

    def _tokenize_prompts(
        self, prompts: list[list[dict[str, str]]]
    ) -> tuple[list[list[int]], None, dict[str, Any]]:
        return self.rounds.prompt_ids(prompts), None, {}

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **options: Any,
    ) -> Scored:
        """As in PPO: rows of like length share a pass, and the output layer reads completion tokens alone."""
        if options.get("compute_aux_loss"):  # of a mixture of experts: TRL's own passes keep it
            scored: Scored = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **options
            )
            return scored
        settings = self.rounds.config.ppo
        with self.accelerator.autocast():
            logprobs_B_T, entropy_B_T = batch_logprobs(
                model,
                input_ids,
                attention_mask,
                attention_mask[:, -logits_to_keep:],
                settings.temperature,
                rows=batch_size or len(input_ids),
                pad_id=self.rounds.tokenizer.pad_token_id if settings.packing else None,
                with_entropy=compute_entropy,
            )
        return logprobs_B_T, entropy_B_T, None


class _Rloo(_Answered, RLOOTrainer):  # type: ignore[misc]
    """TRL's RLOO."""

    def _generate_single_turn(self, *_: object) -> list[list[int]]:
        return self.rounds.answer()

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, *given: Any, **options: Any
    ) -> Scored:
        # A round's first pass without gradients is that of the policy which sampled.
        if not torch.is_grad_enabled() and (told_B_T := self.rounds.told()) is not None:
            return told_B_T.to(input_ids.device), None, None
        return super()._get_per_token_logps_and_entropies(model, input_ids, *given, **options)


class _Grpo(_Answered, GRPOTrainer):  # type: ignore[misc]
    """TRL's GRPO; it computes the log-probabilities of the sampler itself."""

    def _generate_single_turn(self, *_: object) -> tuple[list[list[int]], None]:
        return self.rounds.answer(), None
