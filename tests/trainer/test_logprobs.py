"""Log-probabilities piece by piece are those of one softmax over everything, and so is their gradient."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutput

from limbeck.trainer.layout import padded
from limbeck.trainer.logprobs import PIECE, batch_logprobs, completion_logprobs, logprobs_and_entropy
from limbeck.trainer.tokens import pad_left, pad_right
from tests import tiny

ROWS, TOKENS = 2, 3
IDS = torch.tensor([[1, 5, 7, 2], [3, 0, 4, 4]])
LAYOUT = padded(IDS, torch.ones_like(IDS), torch.ones(ROWS, TOKENS))


class Table(nn.Module):
    """A causal LM whose logits are its weights, twice as large as its output layer gives them."""

    def __init__(self, vocabulary: int, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.table = nn.Parameter(torch.randn(ROWS, TOKENS + 1, vocabulary, dtype=dtype))
        self.head = nn.Identity()

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, ids_B_S: Tensor, **_: Any) -> CausalLMOutput:
        return CausalLMOutput(logits=self.head(self.table) * 2)


@pytest.mark.parametrize(
    ("vocabulary", "dtype", "tolerance"),
    [(8, torch.float32, 1e-6), (8, torch.bfloat16, 1e-2), (PIECE // ROWS // 2 + 8, torch.float32, 1e-5)],
    ids=["small", "bfloat16", "several pieces"],
)
def test_values_and_gradients_are_those_of_the_whole_softmax(
    vocabulary: int, dtype: torch.dtype, tolerance: float
) -> None:
    model, temperature = Table(vocabulary, dtype), 0.7
    all_B_T_V = (model.table[:, :-1].float() * 2 / temperature).log_softmax(-1)
    expected = all_B_T_V.gather(-1, IDS[:, -TOKENS:, None]).flatten()
    weight = torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0, -1.0])
    (wanted,) = torch.autograd.grad((weight * expected).sum(), model.table)
    logprobs = completion_logprobs(model, LAYOUT, temperature)
    (gradient,) = torch.autograd.grad((weight * logprobs).sum(), model.table)
    torch.testing.assert_close(logprobs, expected.detach(), atol=tolerance, rtol=tolerance, check_dtype=False)
    torch.testing.assert_close(gradient, wanted, atol=tolerance, rtol=tolerance)
    assert not gradient[:, -1].any()
    again, entropy = logprobs_and_entropy(model, LAYOUT, temperature)
    torch.testing.assert_close(again, expected.detach(), atol=tolerance, rtol=tolerance)
    by_torch = torch.special.entr(all_B_T_V.detach().exp()).sum(-1).flatten()
    torch.testing.assert_close(entropy, by_torch, atol=10 * tolerance, rtol=tolerance)


def test_the_output_layer_is_as_it_was_afterwards() -> None:
    model = Table(8, torch.float32)

    def refuse(*_: object) -> None:
        raise MemoryError

    with model.register_forward_hook(refuse), pytest.raises(MemoryError):
        completion_logprobs(model, LAYOUT, 1.0)
    assert model(IDS).logits.shape == (ROWS, TOKENS + 1, 8)


@pytest.mark.parametrize(
    ("rows", "pad_id", "passes"),
    [
        # A completion without tokens has a column all the same.
        (1, None, [(1, 3), (1, 5), (1, 6), (1, 7), (1, 7)]),
        (2, None, [(2, 5), (2, 11), (1, 7)]),
        (9, None, [(5, 11)]),
        (1, 0, [(1, 2), (1, 5), (1, 6), (1, 7), (1, 7)]),
        (9, 0, [(4, 7)]),
    ],
)
def test_of_a_batch_all_comes_back_in_place_from_passes_of_rows_of_like_length(
    rows: int, pad_id: int | None, passes: list[tuple[int, int]]
) -> None:
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=20, initializer_range=0.3, **tiny.SHAPE)).eval()
    prompts = [[2, 5, 11], [9], [2, 5, 11, 12, 3], [7, 2], [7, 7, 7, 3]]
    completions = [[12, 4], [15, 3, 3, 8, 9, 4], [4], [], [8, 8, 4]]
    left, left_mask = pad_left(prompts, 0)
    right, mask_B_T = pad_right(completions, 0)
    ids_B_S, mask_B_S = torch.cat([left, right], 1), torch.cat([left_mask, mask_B_T], 1)
    expected, entropies = torch.zeros(right.shape), torch.zeros(right.shape)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        alone = (model(torch.tensor([prompt + completion])).logits[0] / 0.7).log_softmax(-1)
        for column, token in enumerate(completion):
            before = alone[len(prompt) + column - 1]
            expected[row, column] = before[token]
            entropies[row, column] = torch.special.entr(before.exp()).sum()

    shapes = list[tuple[int, ...]]()
    with model.model.embed_tokens.register_forward_hook(lambda _, given, __: shapes.append(given[0].shape)):
        found, entropy = batch_logprobs(
            model, ids_B_S, mask_B_S, mask_B_T, 0.7, rows=rows, pad_id=pad_id, with_entropy=True
        )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy, entropies, atol=1e-5, rtol=1e-5)
    assert shapes == passes
    weights = torch.rand(found.shape)
    ours, wanted = (
        torch.autograd.grad((weights * item).sum(), list(model.parameters())) for item in (found, expected)
    )
    for one, other in zip(ours, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_entropies_of_a_batch_are_made_where_they_are_wanted() -> None:
    ones = torch.ones_like(IDS)
    given = (Table(8, torch.float32), IDS, ones, ones[:, 1:], 1.0)
    logprobs, entropy = batch_logprobs(*given, rows=1, pad_id=None, with_entropy=False)
    assert logprobs.shape == (ROWS, TOKENS)
    assert entropy is None
