"""Supervised fine-tuning of the student with TRL's SFTTrainer on DeepSpeed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
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
from limbeck.progress import Progress, say
from limbeck.saver import Saver
from limbeck.trainer.engines import DTYPES, deepspeed_json, start_process
from limbeck.trainer.networks import load_policy, load_tokenizer, save_checkpoint, stop_at
from limbeck.trainer.packing import check_packable, packed_batch
from limbeck.trainer.tokens import ending_id, training_rows


@dataclass(frozen=True)
class SftRun:
    """What a training gave: the checkpoint's folder and `sft/loss` at some steps."""

    folder: Path
    history: list[dict[str, float]]


def train_sft(
    base: Path,
    pairs: Sequence[tuple[str, str]],
    config: Config,
    folder: Path,
    name: str,
    resume_from: Path | None,
    saver: Saver,
) -> SftRun:
    """Fine-tune a checkpoint on prompt-completion pairs.

    The loss of an update is the mean over the completion tokens (with what ends the turn) of all its passes.

    Args:
        base: The student's checkpoint folder.
        pairs: User messages and the completions to imitate.
        config: `sft`, `student`, `task` and the seed are read.
        folder: An empty folder for the result and the trainer's own files.
        name: What progress lines call it.
        resume_from: A training state saved by an earlier attempt.
        saver: Takes training states; already entered.

    Raises:
        ConfigError: when something is asked for that this model or machine cannot do.
        DataError: when the student cannot be loaded, or nothing fits `sft.max_length`.
        EngineError: when the trainer does not run under DeepSpeed.
        StoppedError: after SIGTERM, when the state is stored.
    """
    settings = config.sft
    start_process(config.seed, settings.deepspeed)
    tokenizer = load_tokenizer(base)
    model = load_policy(base, config.student.dtype, settings.deepspeed)
    micro_batch = settings.rows_at_once
    accumulation = settings.batch_size // micro_batch
    rows = _rows(tokenizer, config.chat("student"), pairs, settings.max_length)
    collate = None
    if settings.packing:
        check_packable(model)
        collate = partial(packed_batch, pad_id=tokenizer.pad_token_id, capacity=settings.max_length)
    arguments = TrlSftConfig(
        output_dir=str(folder / "trainer"),
        use_cpu=not torch.cuda.is_available(),
        bf16=config.student.dtype == "bfloat16",
        seed=config.seed,
        data_seed=config.seed,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        num_train_epochs=settings.num_epochs,
        max_steps=settings.max_steps,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=accumulation,
        gradient_checkpointing=settings.deepspeed.gradient_checkpointing,
        dataset_kwargs={"skip_prepare_dataset": True},  # the rows are tokens already
        deepspeed=deepspeed_json(
            settings.deepspeed,
            config.student.dtype,
            micro_batch=micro_batch,
            accumulation=accumulation,
            max_grad_norm=1.0,
        ),
        optim="adamw_torch",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    callback = _Watch(name, folder / "trainer", saver)
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=collate,
        processing_class=tokenizer,
        callbacks=[callback],
    )
    if not trainer.is_deepspeed_enabled:
        raise EngineError(
            "SFT does not run under DeepSpeed", remedy="Start it with torchrun, not `accelerate launch --cpu`"
        )
    trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    history = [
        {"step": float(entry["step"]), "sft/loss": entry["loss"], "sft/learning_rate": entry["learning_rate"]}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]
    # With ZeRO-3 the trainer leaves a process-wide mark that splits every model loaded later.
    unset_hf_deepspeed_config()
    trained = trainer.accelerator.unwrap_model(trainer.model).to(DTYPES[config.student.dtype])
    ending = ending_id(tokenizer, config.chat("student"))
    if ending is not None:
        stop_at(trained, ending)
    return SftRun(save_checkpoint(trained, tokenizer, folder / "checkpoint"), history)


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


class _Watch(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Shows progress, and asks for a checkpoint when the saver wants one.

    The trainer's own checkpoint holds weights, optimizer, scheduler, generators, and its place in the data.
    """

    def __init__(self, name: str, folder: Path, saver: Saver) -> None:
        self.name, self.folder, self.saver = name, folder, saver
        self.progress: Progress | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self.progress = Progress(self.name, state.max_steps, "steps")
        self.progress.resume(state.global_step)
        self.saver.begin(state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        if self.progress:
            self.progress.add(1, f"loss {losses[-1]:.3f}" if losses else "")
        # After the last step the result is written, which is worth more than a state.
        control.should_save = state.global_step < state.max_steps and self.saver.due()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self.saver.save(state.global_step, self.folder / f"checkpoint-{state.global_step}")
