"""The trainer of `sft` beside TRL's SFTTrainer, on completions of mixed lengths; and how its cost grows.

    python -m bench.sft --json FILE [--model demo|smollm2|all] [--rounds 5] [--parts packed]

Each side is a call from a checkpoint and texts to a new checkpoint: loading, tokens, optimizer and saving are
in it. Both make the same updates of the same rows in the same order, in float32 on the same threads. TRL has
its own defaults: padded passes of 8 rows, activations recomputed (also Limbeck's default), fused AdamW, no
DeepSpeed. Losses must agree, or the run fails. `demo` has the shape of the demo's student and random weights,
`smollm2` is the student of examples/smollm2: ten layers of SmolLM2-135M.
"""

import tempfile
import time
from functools import partial
from pathlib import Path

import datasets
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from bench.measured import Comparison, Growth
from bench.trainings import ModelName, Size, Trained, checkpoint, compared, grown, pairs, peak_mib, run
from limbeck import chat as chats
from limbeck.config import Chat, Config, parse_config
from limbeck.trainer.networks import load_tokenizer
from limbeck.trainer.sft import train_sft
from limbeck.trainer.tokens import training_rows
from tests import saving

SIZES: dict[ModelName, Size] = {
    "demo": Size(rows=512, batch=32, median=24, longest=256),
    "smollm2": Size(rows=64, batch=8, median=40, longest=256),
}
FEW = Size(rows=128, batch=32, median=24, longest=256)
PASSED = 8
"""Rows of a forward pass by default, TRL's and Limbeck's."""
Texts = list[tuple[str, str]]


def ours(base: Path, given: Texts, size: Size, passed: int | None, packing: bool) -> Trained:
    """Limbeck's trainer."""
    sft = {
        "num_epochs": 1,
        "batch_size": size.batch,
        "micro_batch_size": passed,
        "max_length": size.longest,
        "packing": packing,
        "deepspeed": {"zero_stage": 0},  # one process: nothing to split
    }
    config = parse_config({"student": {"dtype": "float32"}, "sft": sft})
    with tempfile.TemporaryDirectory() as scratch:
        started = time.monotonic()
        made = train_sft(base, given, config, Path(scratch), "sft", None, saving.no_saver())
        seconds = time.monotonic() - started
    rows = training_rows(load_tokenizer(base), Chat(), given, size.longest, "max_length")
    losses = [entry["sft/loss"] for entry in made.history]
    return Trained(seconds, sum(len(row.ids) for row in rows), losses, peak_mib())


def theirs(base: Path, given: Texts, size: Size) -> Trained:
    """TRL's SFTTrainer: the texts are what Limbeck renders, so that the tokens are the same."""
    with tempfile.TemporaryDirectory() as scratch:
        started = time.monotonic()
        tokenizer = AutoTokenizer.from_pretrained(base)
        template = chats.of_tokenizer(tokenizer, Chat())
        opening, ending = chats.turn(template, Chat())
        # Limbeck's order of a first epoch.
        order = torch.randperm(len(given), generator=torch.Generator().manual_seed(Config().seed)).tolist()
        rows = [
            {
                "prompt": chats.prompt_text(template, Chat(), given[place][0]),
                "completion": opening + given[place][1] + ending,
            }
            for place in order
        ]
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
            args=SFTConfig(
                output_dir=scratch,
                num_train_epochs=1,
                per_device_train_batch_size=PASSED,
                gradient_accumulation_steps=size.batch // PASSED,
                train_sampling_strategy="sequential",
                max_length=size.longest,
                learning_rate=2e-5,
                lr_scheduler_type="cosine",
                warmup_steps=0.03,
                use_cpu=not torch.cuda.is_available(),
                bf16=False,
                logging_steps=1,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                dataloader_pin_memory=False,
            ),
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        trainer.train()
        trainer.save_model(scratch)
        seconds = time.monotonic() - started
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    tokens = sum(map(len, trainer.train_dataset["input_ids"]))
    return Trained(seconds, tokens, losses, peak_mib())


def compare(model: ModelName, packed: bool, rounds: int) -> Comparison:
    """With packing, in one pass an update; or with Limbeck's defaults, to be no slower than TRL's."""
    size, given = SIZES[model], pairs(model, SIZES[model])
    with tempfile.TemporaryDirectory() as scratch:
        base = checkpoint(model, Path(scratch) / "base")
        measured, note = compared(
            partial(ours, base, given, size, None if packed else PASSED, packed),
            partial(theirs, base, given, size),
            rounds,
        )
    return Comparison(
        what="sft, packed, one pass an update" if packed else "sft, defaults: padded passes by length",
        against="TRL SFTTrainer, its defaults",
        model=model,
        unit="tokens/s",
        goal=1.5 if packed else 1.0,
        goal_is="at least",
        pairs=measured,
        note=f"{model}: {note}",
    )


def growth() -> tuple[Growth, ...]:
    """Of the demo's model, packed."""
    with tempfile.TemporaryDirectory() as scratch:
        base = checkpoint("demo", Path(scratch) / "base")
        return grown(
            "sft", "demo", FEW, lambda size: partial(ours, base, pairs("demo", size), size, None, True)
        )


if __name__ == "__main__":
    run(__doc__, compare, growth)
