"""SFT's forward and backward passes over padded and over packed batches, on completions of mixed lengths.

    python -m bench.packing [--pairs 5] [--rows 8] [--batches 4] [--width 256] [--layers 4] [--max-length 512]

Both sides get the same batches and the same Llama with random weights; they take turns, so that they meet the
same load of the machine. A token counts where it is no padding. Lengths are drawn log-normally (median 96,
sigma 0.8), cut at `--max-length`: a few long completions among many short ones, as teachers write them.
"""

import argparse
import statistics
import time
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from limbeck.trainer.packing import packed_batch
from limbeck.trainer.tokens import IGNORED

VOCABULARY = 4096
Piece = dict[str, list[int]]
Batch = dict[str, Any]


def pieces(random: np.random.Generator, rows: int, max_length: int) -> list[Piece]:
    """Rows of one forward pass; the first quarter of each is its prompt."""
    lengths = np.clip(random.lognormal(np.log(96), 0.8, size=rows).astype(int), 8, max_length)
    made = []
    for length in lengths:
        ids = random.integers(1, VOCABULARY, size=length).tolist()
        made.append({"input_ids": ids, "labels": [IGNORED] * (length // 4) + ids[length // 4 :]})
    return made


def seconds(model: Any, batches: list[Batch]) -> float:
    """Time of the forward and backward passes over some batches: CPU seconds where there is no GPU."""
    clock = time.monotonic if torch.cuda.is_available() else time.process_time
    started = clock()
    for batch in batches:
        model.zero_grad()
        torch.autograd.backward(model(**batch, use_cache=False).loss)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - started


def main() -> None:
    """Print tokens a second of both sides, and the median of their ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (
        ("pairs", 5),
        ("rows", 8),
        ("batches", 4),
        ("width", 256),
        ("layers", 4),
        ("max-length", 512),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    torch.manual_seed(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=asked.width,
        intermediate_size=4 * asked.width,
        num_hidden_layers=asked.layers,
        num_attention_heads=asked.width // 32,
        num_key_value_heads=asked.width // 32,
    )
    model: Any = LlamaForCausalLM(config).to(device)
    random = np.random.default_rng(1)
    given = [pieces(random, asked.rows, asked.max_length) for _ in range(asked.batches)]
    pad = DataCollatorForLanguageModeling(pad_token_id=0)
    batches = {
        "padded": [pad(batch) for batch in given],
        "packed": [packed_batch(batch, 0, asked.max_length) for batch in given],
    }
    tokens = sum(len(piece["input_ids"]) for batch in given for piece in batch)
    for side, made in batches.items():
        laid = sum(batch["input_ids"].numel() for batch in made)
        print(f"{side}: {laid} places for {tokens} tokens, {1 - tokens / laid:.0%} padding")
    on_device = {
        side: [{name: value.to(device) for name, value in batch.items()} for batch in made]
        for side, made in batches.items()
    }
    for made in on_device.values():  # what is set up once is no part of it
        seconds(model, made[:1])
    speeds: dict[str, list[float]] = {"padded": [], "packed": []}
    for pair in range(asked.pairs):
        for side in sorted(speeds, reverse=pair % 2 == 0):
            speeds[side].append(tokens / seconds(model, on_device[side]))
    for side, values in speeds.items():
        shown = ", ".join(f"{value:,.0f}" for value in values)
        print(f"{side}: median {statistics.median(values):,.0f} tokens/s ({shown})")
    ratios = [after / before for before, after in zip(speeds["padded"], speeds["packed"], strict=True)]
    print(f"packed / padded: median {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
