"""Rollouts by transformers' `generate`: `ppo.sampler: transformers`.

vLLM schedules each sequence at each step, in Python: of a model of few weights that is most of its work.
`generate` takes one step for a whole batch, and goes on until the last answer of the batch ends.
Shapes: B rollouts, P prompt tokens (padded on the left), V vocabulary.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_model
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from limbeck import chat as chats
from limbeck.config import Chat, Dtype
from limbeck.sampling import Sample, SampleRequest
from limbeck.trainer.engines import device
from limbeck.trainer.networks import WEIGHTS, load_frozen_policy, load_tokenizer
from limbeck.trainer.tokens import pad_left

PADDING = 0
"""Before a prompt and behind an answer: any token of the vocabulary, as nothing looks at it."""


class TransformersSampler:
    """A `LiveSampler` in this process, with weights of its own; it knows neither `top_p` nor `verdict`."""

    def __init__(self, folder: Path, dtype: Dtype, batch_size: int, chat: Chat) -> None:
        """Load a checkpoint folder.

        Args:
            folder: Of a causal LM.
            dtype: Number type of its weights.
            batch_size: Answers that are sampled at once.
            chat: How the model is asked.

        Raises:
            DataError: when transformers cannot load it.
        """
        self._model = cast(Any, load_frozen_policy(folder, dtype).to(device()))
        self._tokenizer = load_tokenizer(folder)
        self._batch_size = batch_size
        self._prompt_ids = chats.asking(self._tokenizer, chat)
        # Where vLLM ends an answer too. What else a checkpoint says of sampling decides nothing there either.
        ends = self._model.generation_config.eos_token_id
        self._ends = {self._tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        self._model.generation_config = GenerationConfig(
            eos_token_id=sorted(self._ends), pad_token_id=PADDING, do_sample=False
        )

    def prompt_ids(self, user_message: str) -> list[int]:
        """Token ids of a user message in the model's chat template, up to where the answer begins."""
        return self._prompt_ids(user_message)

    def sample(self, requests: Sequence[SampleRequest]) -> list[Sample]:
        """One sample for each request, in order."""
        return [sample for _, sample in self.stream(enumerate(requests))]

    def stream(self, requests: Iterable[tuple[int, SampleRequest]]) -> Iterator[tuple[int, Sample]]:
        """The same with their requests' numbers, batch by batch."""
        waiting = iter(requests)
        while batch := list(islice(waiting, self._batch_size)):
            numbers, asked = zip(*batch, strict=True)
            yield from zip(numbers, self._answers(asked), strict=True)

    def load_weights(self, folder: Path) -> None:
        """Take over the weights of a folder of the same shape; the next sample comes from them."""
        load_model(self._model, folder / WEIGHTS)

    def close(self) -> None:
        """Free the model's memory."""
        del self._model

    def _answers(self, requests: Sequence[SampleRequest]) -> list[Sample]:
        """Answers to one batch, in order."""
        prompts = [cast(list[int], request.prompt) for request in requests]
        ids_B_P, mask_B_P = (tensor.to(device()) for tensor in pad_left(prompts, PADDING))
        draw = _Draw(requests)
        ids_B_S = self._model.generate(
            ids_B_P,
            attention_mask=mask_B_P,
            max_new_tokens=draw.num_tokens,
            logits_processor=LogitsProcessorList([draw]),
        )
        answers = ids_B_S[:, ids_B_P.shape[1] :].tolist()
        told = torch.stack(draw.logprobs, dim=1).tolist()
        cut = [
            self._until_end(ids[: request.max_tokens]) for ids, request in zip(answers, requests, strict=True)
        ]
        ended = [ids[-1] in self._ends for ids in cut]
        # As vLLM does: what ends an answer is one of its tokens and not of its text.
        texts = self._tokenizer.batch_decode(
            [ids[:-1] if end else ids for ids, end in zip(cut, ended, strict=True)], skip_special_tokens=True
        )
        return [
            Sample(
                text=text.strip(),
                token_ids=ids,
                logprob=sum(logprobs[: len(ids)]) if request.logprobs else None,
                finish_reason="stop" if end else "length",
                token_logprobs=logprobs[: len(ids)] if request.token_logprobs else None,
            )
            for request, ids, end, text, logprobs in zip(requests, cut, ended, texts, told, strict=True)
        ]

    def _until_end(self, ids: list[int]) -> list[int]:
        """An answer up to and with what ends it."""
        end = next((place for place, token in enumerate(ids) if token in self._ends), len(ids) - 1)
        return ids[: end + 1]


class _Draw(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped here
    """Draws the next token of each row by the row's own seed: which rows share a batch decides nothing.

    A token is where the cumulative probabilities pass a uniform number (inverse transform sampling);
    `generate` is left no other choice.
    """

    def __init__(self, requests: Sequence[SampleRequest]) -> None:
        """Make the numbers of all steps."""
        self.num_tokens = max(request.max_tokens for request in requests)
        self.logprobs: list[Tensor] = []
        """Of what was drawn at each step, B, at temperature 1."""
        numbers = [np.random.default_rng(request.seed).random(self.num_tokens) for request in requests]
        self._uniform_B_T = torch.from_numpy(np.stack(numbers)).to(device())
        temperatures = [request.temperature for request in requests]
        self._temperature_B_1 = torch.tensor(temperatures, device=device()).unsqueeze(1)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Logits of one step, B x V: -inf but for one token of each row."""
        uniform_B_1 = self._uniform_B_T[:, len(self.logprobs), None]
        passed_B_V = (scores / self._temperature_B_1).double().softmax(dim=1).cumsum(dim=1)
        # Rounding may leave their sum below 1, and a number above it would have no token.
        uniform_B_1 = (uniform_B_1 * passed_B_V[:, -1:]).contiguous()
        token_B_1 = torch.searchsorted(passed_B_V, uniform_B_1, right=True).clamp(max=scores.shape[1] - 1)
        self.logprobs.append(scores.log_softmax(dim=1).gather(1, token_B_1).squeeze(1))
        return torch.full_like(scores, -torch.inf).scatter_(1, token_B_1, 0.0)
