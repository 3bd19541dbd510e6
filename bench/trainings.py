"""What `bench.sft` and `bench.reward` share: models, texts of mixed lengths, a process for each side.

Lengths are the quantiles of a log-normal distribution: a few long completions among many short ones, as
teachers write them.
"""

import argparse
import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from math import exp
from multiprocessing import get_context
from pathlib import Path
from statistics import NormalDist
from typing import Literal, NamedTuple

from bench.measured import Comparison, Growth, Pair, in_turns, save
from limbeck import local
from limbeck.demo import task

ModelName = Literal["demo", "smollm2"]
SIGMA = 0.8
NEAR = 1e-3
"""How far the losses of an update may be apart where both sides train the same way."""
GROWN = (1, 10, 100)
PARTS = ("packed", "defaults", "growth")


class Size(NamedTuple):
    """How much is trained on."""

    rows: int
    batch: int
    """Rows of an update."""
    median: int
    """Words of a message and its completion."""
    longest: int
    """Most tokens of a row; both sides cut there."""


class Trained(NamedTuple):
    """What one training gave."""

    seconds: float
    tokens: int
    """Of the rows that were trained on, without padding."""
    losses: list[float]
    peak_mib: float
    """Most resident memory of its process so far."""
    auc: float | None = None

    @property
    def speed(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


def pairs(model: ModelName, size: Size) -> list[tuple[str, str]]:
    """Messages and completions of random words, a quarter of them the message's."""
    draw = random.Random(1)  # noqa: S311 - no secrets
    words = list(task.LETTERS) if model == "demo" else _english()
    shares = [(number + 0.5) / size.rows for number in range(size.rows)]
    lengths = [round(size.median * exp(SIGMA * NormalDist().inv_cdf(share))) for share in shares]
    draw.shuffle(lengths)
    made = []
    for length in lengths:
        text = draw.choices(words, k=max(8, length))
        made.append((" ".join(text[: length // 4]), " ".join(text[length // 4 :])))
    return made


def _english() -> list[str]:
    """Words, those of README and its neighbours."""
    text = " ".join(path.read_text(encoding="utf-8") for path in Path(__file__).parents[1].glob("*.md"))
    return sorted({word for word in text.split() if word.isalpha() and word.islower()})


def checkpoint(model: ModelName, folder: Path) -> Path:
    """A student: of the demo's shape with random weights, or what examples/smollm2 cuts from SmolLM2."""
    if model == "smollm2":
        from examples.smollm2 import inputs  # noqa: PLC0415 - heavy

        inputs.make(Path("build/smollm2"))
        return Path("build/smollm2/student")
    import torch  # noqa: PLC0415 - heavy
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415 - heavy

    from limbeck.demo.models import RECIPES, build_tokenizer  # noqa: PLC0415 - heavy

    torch.manual_seed(1)
    recipe, tokenizer = RECIPES["student"], build_tokenizer()
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=4 * recipe.width,
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


Training = Callable[[], Trained]


@contextmanager
def process() -> Iterator[Callable[[Training], Trained]]:
    """A process of its own that trains when asked: the other side's engine leaves nothing in it."""
    os.environ.update(local.environment())
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield lambda training: pool.submit(training).result()


def peak_mib() -> float:
    """Most resident memory of this process so far."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def compared(ours: Training, theirs: Training, rounds: int) -> tuple[tuple[Pair, ...], str]:
    """The pairs of tokens a second, and what shows that both sides trained the same way.

    Args:
        ours: Trains once.
        theirs: The same of the other side.
        rounds: How often.

    Raises:
        ValueError: when they did not.
    """
    last: dict[str, Trained] = {}
    with process() as mine, process() as other:

        def speed(side: str, trained: Trained) -> float:
            last[side] = trained
            return trained.speed

        measured = in_turns(lambda: speed("ours", mine(ours)), lambda: speed("theirs", other(theirs)), rounds)
    one, another = last["ours"], last["theirs"]
    apart = max(abs(a - b) for a, b in zip(one.losses, another.losses, strict=True))
    if one.tokens != another.tokens or apart > NEAR:
        raise ValueError(
            f"another training: {one.tokens} and {another.tokens} tokens, losses {apart:.1e} apart"
        )
    places = sorted({0, len(one.losses) // 2, len(one.losses) - 1})
    shown = "; ".join(f"{at + 1}: {one.losses[at]:.4f}, {another.losses[at]:.4f}" for at in places)
    aucs = "" if one.auc is None else f"; AUC {one.auc:.4f}, {another.auc:.4f}"
    return measured, (
        f"{len(one.losses)} updates, {one.tokens} tokens; losses of update (ours, theirs) {shown}, at most "
        f"{apart:.0e} apart{aucs}; peak memory {one.peak_mib:,.0f}, {another.peak_mib:,.0f} MiB"
    )


def grown(
    what: str, model: ModelName, size: Size, training: Callable[[Size], Training]
) -> tuple[Growth, ...]:
    """Tokens/s and memory of 1, 10 and 100 times as many rows, each in a process of its own that is warm."""
    made = []
    for times in GROWN:
        with process() as one:
            one(training(size))
            larger = size._replace(rows=size.rows * times)
            made.append((float(larger.rows), one(training(larger))))
    return (
        Growth(
            what=what,
            model=model,
            size="rows",
            unit="tokens/s",
            points=tuple((rows, trained.speed) for rows, trained in made),
        ),
        Growth(
            what=f"{what}, peak memory",
            model=model,
            size="rows",
            unit="MiB",
            points=tuple((rows, trained.peak_mib) for rows, trained in made),
        ),
    )


def run(
    description: str | None,
    compare: Callable[[ModelName, bool, int], Comparison],
    growth: Callable[[], tuple[Growth, ...]],
) -> None:
    """What was typed: measure the parts that are asked for, with the models that are.

    Args:
        description: Of the benchmark.
        compare: One comparison, of a model, packed or with defaults, and so many rounds.
        growth: With the demo's model.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--model", choices=["demo", "smollm2", "all"], default="all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", choices=PARTS, nargs="+", default=PARTS)
    asked = parser.parse_args()
    models: tuple[ModelName, ...] = ("demo", "smollm2") if asked.model == "all" else (asked.model,)
    comparisons = tuple(
        compare(model, part == "packed", asked.rounds)
        for model in models
        for part in ("packed", "defaults")
        # An update of the small model is one pass, which has no order.
        if part in asked.parts and (part, model) != ("defaults", "smollm2")
    )
    growths = growth() if "growth" in asked.parts and "demo" in models else ()
    save(asked.json, comparisons=comparisons, growths=growths)
