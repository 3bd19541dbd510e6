"""Supervised fine-tuning of the student with TRL's SFTTrainer on DeepSpeed.

The Trainer's own resume is not used: it reads DeepSpeed's checkpoints and pickles, which fit one number of
processes alone. A resumed run is a Trainer that has the rest of the rows and updates before it, whose engine,
generators and learning rate are set before its first update.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from trl import SFTConfig as TrlSftConfig
from trl import SFTTrainer

from limbeck.config import Chat, Config
from limbeck.errors import DataError, EngineError
from limbeck.jobs import SftRun
from limbeck.progress import Progress, say
from limbeck.saver import StateSaver
from limbeck.trainer import ranks
from limbeck.trainer.engines import DTYPES, advanced, deepspeed_json, keep_gradients, start_process
from limbeck.trainer.networks import load_policy, load_tokenizer, save_checkpoint, stop_at
from limbeck.trainer.packing import check_packable, packed_batch
from limbeck.trainer.randomness import load_random, save_random
from limbeck.trainer.states import load_engine, save_engine
from limbeck.trainer.tokens import ending_id, training_rows

HISTORY, ENGINE = "history.json", "engine"


def train_sft(
    base: Path,
    pairs: Sequence[tuple[str, str]],
    config: Config,
    folder: Path,
    name: str,
    resume_from: Path | None,
    saver: StateSaver,
) -> SftRun:
    """Fine-tune a checkpoint on prompt-completion pairs.

    The loss of an update is the mean over the completion tokens (with what ends the turn) of all its passes,
    on all processes.

    Args:
        base: The student's checkpoint folder.
        pairs: User messages and the completions to imitate.
        config: `sft`, `student`, `task` and the seed are read.
        folder: A folder for the result and the trainer's own files.
        name: What progress lines call it.
        resume_from: A training state saved by an earlier attempt.
        saver: Takes training states; already entered.

    Raises:
        ConfigError: when something is asked for that this model or machine cannot do, or the processes cannot
            share a batch evenly.
        DataError: when the student cannot be loaded, or nothing fits `sft.max_length`.
        EngineError: when the trainer does not run under DeepSpeed.
        StoppedError: after SIGTERM, when the state is stored.
    """
    settings = config.sft
    start_process(config.seed, settings.deepspeed)
    passes = ranks.passes(settings.batch_size, settings.micro_batch_size, "sft")
    tokenizer = load_tokenizer(base)
    model = load_policy(base, config.student.dtype, settings.deepspeed)
    rows = _rows(tokenizer, config.chat("student"), pairs, settings.max_length)
    collate = None
    if settings.packing:
        check_packable(model, "sft.packing")
        collate = partial(packed_batch, pad_id=tokenizer.pad_token_id, capacity=settings.max_length)
    history = json.loads((resume_from / HISTORY).read_text()) if resume_from else []
    num_updates = settings.max_steps
    if num_updates < 0:
        num_updates = ceil(settings.num_epochs * len(rows) / settings.batch_size)
    order = _order(len(rows), num_updates * settings.batch_size, config.seed)
    order = _by_length(order, list(map(len, rows["input_ids"])), settings.batch_size)
    arguments = TrlSftConfig(
        output_dir=str(folder / "trainer"),
        use_cpu=not torch.cuda.is_available(),
        bf16=config.student.dtype == "bfloat16",
        seed=config.seed,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        max_steps=num_updates - len(history),
        train_sampling_strategy="sequential",  # `order` has been drawn
        per_device_train_batch_size=passes.rows,
        gradient_accumulation_steps=passes.accumulation,
        average_tokens_across_devices=True,
        gradient_checkpointing=settings.deepspeed.gradient_checkpointing,
        dataset_kwargs={"skip_prepare_dataset": True},  # the rows are tokens already
        deepspeed=deepspeed_json(
            settings.deepspeed,
            config.student.dtype,
            micro_batch=passes.rows,
            accumulation=passes.accumulation,
            max_grad_norm=1.0,
        ),
        optim="adamw_torch_fused",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = _Trainer(
        num_updates,
        len(history),
        model=model,
        args=arguments,
        train_dataset=rows.select(order[len(history) * settings.batch_size :]),
        data_collator=collate,
        processing_class=tokenizer,
    )
    trainer.add_callback(_Watch(trainer, history, name, folder / "states", resume_from, saver))
    if not trainer.is_deepspeed_enabled:
        raise EngineError(
            "SFT does not run under DeepSpeed", remedy="Start it with torchrun, not `accelerate launch --cpu`"
        )
    trainer.train()
    # With ZeRO-3 the trainer leaves a process-wide mark that splits every model loaded later.
    unset_hf_deepspeed_config()
    trained = trainer.accelerator.unwrap_model(trainer.model).to(DTYPES[config.student.dtype])
    ending = ending_id(tokenizer, config.chat("student"))
    if ending is not None:
        stop_at(trained, ending)
    return SftRun(save_checkpoint(trained, tokenizer, folder / "checkpoint"), history)


def _order(num_rows: int, count: int, seed: int) -> list[int]:
    """The places of `count` rows: whole shuffled passes, one after another.

    Whoever has the seed knows it, so a resumed run and one of another number of processes go on in it.
    """
    order: list[int] = []
    while len(order) < count:
        generator = torch.Generator().manual_seed(seed + len(order) // num_rows)
        order += torch.randperm(num_rows, generator=generator).tolist()
    return order[:count]


def _by_length(order: list[int], lengths: Sequence[int], batch_size: int) -> list[int]:
    """The same updates, the rows of each by length: those of one forward pass are padded to its longest.

    An update's loss is a mean over all its tokens, so it stays the same.
    """
    return [
        place
        for first in range(0, len(order), batch_size)
        for place in sorted(order[first : first + batch_size], key=lambda place: lengths[place])
    ]


def _rows(tokenizer: Any, chat: Chat, pairs: Sequence[tuple[str, str]], max_length: int) -> datasets.Dataset:
    """The rows that are trained on; one whose prompt alone fills it teaches nothing.

    Raises:
        DataError: when nothing is left, or the chat template does not render a question and its answer.
    """
    rows = training_rows(tokenizer, chat, pairs, max_length, "sft.max_length")
    kept = [row for row in rows if row.num_prompt < len(row.ids)]
    if not kept:
        raise DataError(
            "every prompt fills its row alone",
            where="sft.max_length",
            expected=f"more than {min(row.num_prompt for row in rows)} tokens",
            got=str(max_length),
            remedy="Raise it",
        )
    if len(kept) < len(rows):
        say(f"sft.max_length: {len(rows) - len(kept)} of them are all prompt, and are left out")
    return datasets.Dataset.from_dict(
        {"input_ids": [row.ids for row in kept], "labels": [row.labels for row in kept]}
    )


class _Trainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer for the rest of the updates, with the learning rates of all of them."""

    def __init__(self, num_updates: int, done: int, **given: Any) -> None:
        self.num_updates, self.done = num_updates, done
        super().__init__(**given)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Where it was after the updates that are done."""
        return advanced(super().create_scheduler(self.num_updates, optimizer), self.done)


class _Watch(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Goes on from a state, shows progress, and saves between two updates when the saver wants it."""

    def __init__(
        self,
        trainer: _Trainer,
        history: list[dict[str, float]],
        name: str,
        states: Path,
        resume_from: Path | None,
        saver: StateSaver,
    ) -> None:
        self.trainer, self.history, self.states = trainer, history, states
        self.resume_from, self.saver = resume_from, saver
        self.progress = Progress(name, trainer.num_updates, "steps")

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        keep_gradients(self.trainer.model_wrapped)
        if self.resume_from:
            load_engine(self.trainer.model_wrapped, self.resume_from / ENGINE)
            load_random(self.resume_from)
        self.progress.resume(len(self.history))
        self.saver.begin(len(self.history))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float],
        **_: object,
    ) -> None:
        """Note an update that is done."""
        if "loss" not in logs:
            return
        step = len(self.history) + 1
        noted = {"sft/loss": logs["loss"], "sft/learning_rate": logs["learning_rate"]}
        self.history.append({"step": float(step), **noted})
        self.progress.add(1, f"loss {logs['loss']:.3f}")
        # After the last step the result is written, which is worth more than a state.
        if step < self.trainer.num_updates and self.saver.due():
            self._save(step)

    def _save(self, step: int) -> None:
        """Save all that is needed to go on from here."""
        folder = self.states / str(step)
        save_engine(self.trainer.model_wrapped, folder / ENGINE)
        if ranks.first_on_node():
            (folder / HISTORY).write_text(json.dumps(self.history))
            save_random(folder)
        self.saver.save(step, folder)
