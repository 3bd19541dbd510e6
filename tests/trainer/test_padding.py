"""What is scored in passes without padding is what one padded pass would give."""

import torch
from torch import Tensor

from limbeck.trainer.padding import without_padding

PROMPTS, COMPLETIONS = [3, 1, 5, 2, 4], [2, 6, 1, 0, 3]
"""Tokens of each row; one completion has none."""
WIDTH, NUM_TOKENS = 6, 7
"""A column on either side is padding in all rows."""


def batch() -> tuple[Tensor, Tensor]:
    mask = torch.tensor(
        [
            [0] * (WIDTH - prompt) + [1] * (prompt + completion) + [0] * (NUM_TOKENS - completion)
            for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True)
        ]
    )
    return torch.arange(mask.numel()).view(mask.shape) * mask, mask


def test_values_and_gradients_come_back_in_place_and_padding_is_never_read() -> None:
    ids, mask = batch()
    weights = torch.rand(ids.numel(), requires_grad=True)
    seen = []

    def score(ids_B_S: Tensor, mask_B_S: Tensor, num_tokens: int) -> tuple[Tensor, Tensor, Tensor]:
        seen.append((ids_B_S.shape, num_tokens))
        values = weights[ids_B_S[:, -num_tokens:]] * mask_B_S[:, -num_tokens:]
        return values, 2 * values, values.sum()

    values, doubled, loss = without_padding(score, ids, mask, NUM_TOKENS, 2)
    assert doubled is not None
    assert loss is not None
    expected = weights[ids[:, -NUM_TOKENS:]] * mask[:, -NUM_TOKENS:]
    torch.testing.assert_close(values, expected)
    torch.testing.assert_close(doubled, 2 * expected)
    torch.testing.assert_close(loss, expected.sum() / 3)
    factors = torch.rand(values.shape)
    (gradient,) = torch.autograd.grad((factors * values).sum(), weights, retain_graph=True)
    (wanted,) = torch.autograd.grad((factors * expected).sum(), weights)
    torch.testing.assert_close(gradient, wanted)
    # By length: rows 3 and 0 (2 and 5 tokens), 2 and 1 (6 and 7), 4 (7).
    assert seen == [((2, 5), 2), ((2, 11), 6), ((1, 7), 3)]
    torch.testing.assert_close(without_padding(score, ids, mask, NUM_TOKENS, 1)[0], expected)
    assert seen[3] == ((1, 3), 1), "the completion without tokens has a column all the same"


def test_without_entropies_and_losses_there_are_none() -> None:
    ids, mask = batch()
    values, entropies, loss = without_padding(
        lambda ids_B_S, mask_B_S, num_tokens: (ids_B_S[:, -num_tokens:].float(), None, None),
        ids,
        mask,
        NUM_TOKENS,
        5,
    )
    torch.testing.assert_close(values, ids[:, -NUM_TOKENS:].float())
    assert entropies is None
    assert loss is None
