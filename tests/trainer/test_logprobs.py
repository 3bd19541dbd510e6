"""Log-probabilities piece by piece are those of one softmax over everything, and so is their gradient."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutput

from limbeck.trainer.layout import padded
from limbeck.trainer.logprobs import PIECE, completion_logprobs, logprobs_and_entropy

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
