"""Text to token batches for training: the one way of sft, reward and ppo.

Shapes: B rows, S tokens, K tokens of all rows together.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from limbeck import chat as chats
from limbeck.config import Chat
from limbeck.progress import say
from limbeck.thinking import without_thinking

IGNORED = -100
"""The label of a token that is not trained on. Source: torch.nn.CrossEntropyLoss, `ignore_index`."""


ENCODED_AT_ONCE = 1000
"""Texts that a tokenizer gets in one call: until it returns it holds offsets and masks beside their ids."""


class TokenRow(NamedTuple):
    """A question and its answer."""

    ids: list[int]
    num_prompt: int
    """How many tokens come before the answer: exactly what the engine samples from."""

    @property
    def labels(self) -> list[int]:
        """What is trained on: the answer, and what ends its turn."""
        prompt = min(self.num_prompt, len(self.ids))
        return [IGNORED] * prompt + self.ids[prompt:]


def training_rows(
    tokenizer: Any, chat: Chat, pairs: Sequence[tuple[str, str]], max_length: int, setting: str
) -> list[TokenRow]:
    """The rows of a training set; arguments and errors are those of `RowMaker`."""
    return RowMaker(tokenizer, chat, max_length, setting).rows(pairs) if pairs else []


class RowMaker:
    """Makes rows of questions and answers for one model, and keeps the prompts that it was asked last."""

    def __init__(self, tokenizer: Any, chat: Chat, max_length: int, setting: str) -> None:
        """Read off the chat template what is around an answer.

        Args:
            tokenizer: The model's.
            chat: How the model is asked.
            max_length: Longer rows are cut, and how many is said.
            setting: What `max_length` is called, to say it.

        Raises:
            DataError: when the chat template does not render a question and its answer.
        """
        self._tokenizer, self._chat = tokenizer, chat
        self._max_length, self._setting = max_length, setting
        self._template = chats.of_tokenizer(tokenizer, chat)
        self._turn = chats.turn(self._template, chat)
        self._prompts: dict[str, tuple[str, list[int]]] = {}

    def rows(self, pairs: Sequence[tuple[str, str]]) -> list[TokenRow]:
        """Tokens of user messages and completions, as the engine would have sampled the completions.

        A row is the prompt as engines get it, the answer, and what ends a turn in the chat template: the
        tokenizer's end-of-sequence token where the template ends none.

        Raises:
            DataError: when the chat template does not render a question.
        """
        self._read([message for message in dict(pairs) if message not in self._prompts])
        opening, ending = self._turn
        rows, texts, answers = [], [], []
        for message, completion in pairs:
            answers.append(
                opening
                + (without_thinking(completion) if self._chat.strip_thinking else completion)
                + (ending or self._tokenizer.eos_token)
            )
            texts.append(self._prompts[message][0] + answers[-1])
        for (message, _), answer, ids in zip(pairs, answers, _encoded(self._tokenizer, texts), strict=True):
            rows.append(_joined(self._tokenizer, self._prompts[message][1], ids, answer))
        for message in list(self._prompts)[: -chats.KEPT_PROMPTS]:
            del self._prompts[message]
        num_cut = sum(len(row.ids) > self._max_length for row in rows)
        if num_cut:
            say(
                f"{self._setting}: {num_cut} of {len(rows)} rows are longer than {self._max_length} tokens "
                "and are cut"
            )
        return [TokenRow(row.ids[: self._max_length], row.num_prompt) for row in rows]

    def _read(self, messages: Sequence[str]) -> None:
        """Text and token ids of prompts."""
        texts = [chats.prompt_text(self._template, self._chat, message) for message in messages]
        ids = _encoded(self._tokenizer, texts)
        self._prompts |= zip(messages, zip(texts, ids, strict=True), strict=True)


def _encoded(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = []
    for first in range(0, len(texts), ENCODED_AT_ONCE):
        ids += tokenizer(texts[first : first + ENCODED_AT_ONCE], add_special_tokens=False)["input_ids"]
    return ids


def _joined(tokenizer: Any, prompt_ids: list[int], ids: list[int], answer: str) -> TokenRow:
    """A row from the ids of a prompt, and of prompt and answer in one.

    Where tokens merge across the border (a completion that begins with a line break), the answer is encoded
    alone: the engine's tokens do not merge with the prompt's either.
    """
    if ids[: len(prompt_ids)] != prompt_ids:
        ids = prompt_ids + _encoded(tokenizer, [answer])[0]
    return TokenRow(ids, len(prompt_ids))


def ending_id(tokenizer: Any, chat: Chat) -> int | None:
    """The token that ends a turn in the chat template; None where it ends none, or by several tokens."""
    ending = chats.turn(chats.of_tokenizer(tokenizer, chat), chat).ending
    ids = _encoded(tokenizer, [ending.strip()])[0] if ending else []
    return ids[0] if len(ids) == 1 else None


def pad_right(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Rows of unequal length as ids and mask, both B x S, padded on the right."""
    lengths_B = torch.tensor([len(row) for row in rows])
    return _padded(rows, torch.arange(int(lengths_B.max())) < lengths_B[:, None], pad_id)


def pad_left(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Rows of unequal length as ids and mask, both B x S, padded on the left."""
    lengths_B = torch.tensor([len(row) for row in rows])
    width = int(lengths_B.max())
    return _padded(rows, torch.arange(width) >= width - lengths_B[:, None], pad_id)


def _padded(rows: Sequence[Sequence[int]], inside_B_S: Tensor, pad_id: int) -> tuple[Tensor, Tensor]:
    ids_B_S = torch.full(inside_B_S.shape, pad_id)
    return ids_B_S.masked_scatter_(inside_B_S, joined(rows)), inside_B_S.long()


def joined(rows: Sequence[Sequence[int]]) -> Tensor:
    """The tokens of all rows, one row after another, K."""
    return torch.tensor(list(chain.from_iterable(rows)), dtype=torch.long)
