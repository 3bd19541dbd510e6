"""Completions that share a row: where they go, and that none sees another."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from limbeck.errors import ConfigError
from limbeck.trainer.packing import check_packable, pack, packed_batch
from limbeck.trainer.tokens import IGNORED
from tests import tiny

SIZES: dict[str, Any] = {"vocab_size": 50, **tiny.SHAPE}
MODELS: dict[str, Callable[[], Any]] = {
    "Llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "Qwen 3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES)),
}


@pytest.mark.parametrize(
    ("lengths", "capacity", "rows"),
    [
        ([], 10, []),
        ([10], 10, [[0]]),
        ([6, 5, 4, 5], 10, [[0, 2], [1, 3]]),
        ([1, 1, 1, 9, 9], 10, [[3], [4], [0, 1, 2]]),
        ([3, 3, 3, 3], 10, [[0], [1], [2], [3]]),  # wider rows would pad no less
        ([50, 25, 25], 100, [[0], [1, 2]]),
        ([100, 98, 98, 98], 200, [[0], [1], [2], [3]]),  # two rows of 198 would have 1% fewer tokens,
        ([100, 94, 94, 94], 200, [[0, 3], [1, 2]]),  # of 194 3% fewer
        ([5, 5, 4, 4, 3, 3], 12, [[0, 4], [1, 5], [2, 3]]),  # best fit would leave rows of 10, 8 and 6
    ],
)
def test_rows_are_the_narrowest_that_pad_little(
    lengths: list[int], capacity: int, rows: list[list[int]]
) -> None:
    assert pack(lengths, capacity) == rows


def test_every_piece_is_in_one_row_and_rows_have_little_padding() -> None:
    draw = random.Random(1)  # noqa: S311
    for _ in range(200):
        lengths = [draw.randint(1, 64) for _ in range(draw.randint(1, 100))]
        rows = pack(lengths, 64)
        assert sorted(place for row in rows for place in row) == list(range(len(lengths)))
        width = max(sum(lengths[place] for place in row) for row in rows)
        assert width <= 64
        assert len(rows) * width <= 1.3 * sum(lengths) + width


def pieces() -> list[dict[str, list[int]]]:
    """Seven pieces of 3 to 21 tokens."""
    draw = random.Random(2)  # noqa: S311
    made = []
    for length in (21, 3, 8, 13, 5, 20, 9):
        ids = [draw.randrange(1, 50) for _ in range(length)]
        prompt = draw.randint(1, length - 1)
        made.append({"input_ids": ids, "labels": [IGNORED] * prompt + ids[prompt:]})
    return made


def loss_and_gradients(
    model: Any, batches: list[dict[str, torch.Tensor]]
) -> tuple[float, list[torch.Tensor]]:
    """Mean loss over all trained tokens of some batches, and the gradients of all weights."""
    model.zero_grad()
    count = sum(int((batch["labels"] != IGNORED).sum()) for batch in batches)
    total = 0.0
    for batch in batches:
        given = {name: value for name, value in batch.items() if name != "labels"}
        logits = model(**given, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
        )
        torch.autograd.backward(loss / count)
        total += float(loss.detach()) / count
    return total, [weight.grad.clone() for weight in model.parameters()]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradients_are_those_of_the_pieces_alone(name: str, attention: str) -> None:
    """In float32: the loss to 1e-6, each gradient to a hundred-thousandth of the largest."""
    torch.manual_seed(3)
    model = MODELS[name]()
    model.set_attn_implementation(attention)
    packed = packed_batch(pieces(), pad_id=0, capacity=32)
    assert packed["input_ids"].shape == (4, 21)
    alone = [{key: torch.tensor([value]) for key, value in piece.items()} for piece in pieces()]
    loss, gradients = loss_and_gradients(model, [packed])
    expected_loss, expected = loss_and_gradients(model, alone)
    assert loss == pytest.approx(expected_loss, abs=1e-6)
    for got, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("name", ["Mamba", "LFM 2", "flash attention"])
def test_a_model_that_would_look_into_the_next_piece_is_refused(name: str) -> None:
    if name == "Mamba":
        model = MambaForCausalLM(
            MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, state_size=4)
        )
    elif name == "LFM 2":
        model = Lfm2ForCausalLM(Lfm2Config(**SIZES, layer_types=["conv", "full_attention"]))
    else:
        model = MODELS["Llama"]()
        model.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(ConfigError, match=r"cannot share a row in sft\.packing.*Set sft\.packing: false"):
        check_packable(model, "sft.packing")
    check_packable(MODELS["Llama"](), "sft.packing")
