"""Rollouts in rows of their own and in shared rows: completion tokens are scored as in the rollout alone."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from limbeck.trainer.layout import Layout, packed, padded
from limbeck.trainer.logprobs import logprobs_and_entropy
from limbeck.trainer.tokens import pad_left, pad_right
from tests import tiny

PROMPTS = [[2, 5, 11, 3], [2, 5, 11, 12, 13, 3], [9], [7, 7, 2]]
COMPLETIONS = [[12, 13, 14, 4], [15, 4], [3, 3, 3, 3, 3, 3, 8, 4], [4]]
SIZES: dict[str, Any] = {"vocab_size": 20, "initializer_range": 0.3, **tiny.SHAPE}
MODELS: dict[str, Callable[[], Any]] = {
    "Llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "Gemma 2, which caps logits": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SIZES, final_logit_softcapping=0.5)
    ),
}
LAYOUTS: dict[str, Callable[[Tensor, Tensor, Tensor], Layout]] = {
    "padded": padded,
    "packed": partial(packed, pad_id=0),
}


def laid(name: str) -> Layout:
    left, left_mask = pad_left(PROMPTS, 0)
    right, right_mask = pad_right(COMPLETIONS, 0)
    ids_B_S, mask_B_S = torch.cat([left, right], 1), torch.cat([left_mask, right_mask], 1)
    return LAYOUTS[name](ids_B_S, mask_B_S, right_mask.float())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MODELS)
def test_logprobs_are_those_of_each_rollout_alone(name: str, layout: str) -> None:
    torch.manual_seed(1)
    model = MODELS[name]().eval()
    model.requires_grad_(False)
    together, _ = logprobs_and_entropy(model, laid(layout), 1.0)
    expected = list[float]()
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        alone = model(torch.tensor([prompt + completion])).logits[0].log_softmax(-1)
        expected += [float(alone[len(prompt) - 1 + t, token]) for t, token in enumerate(completion)]
    assert together.tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_places_are_those_before_the_completion_tokens(layout: str) -> None:
    found = laid(layout)
    assert found.tokens_N.tolist() == [token for completion in COMPLETIONS for token in completion]
    before = [(p + c)[len(p) - 1 : -1] for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    assert found.ids_R_S.flatten()[found.before_N].tolist() == [token for some in before for token in some]
    positions = [range(len(p) - 1, len(p) + len(c) - 1) for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    assert found.positions_R_S.flatten()[found.before_N].tolist() == [at for some in positions for at in some]


def test_rollouts_share_rows_where_they_fit() -> None:
    found = laid("packed")
    assert found.ids_R_S.shape == (2, 16)  # 8, 8, 9 and 4 tokens
    assert found.mask_R_S is None
