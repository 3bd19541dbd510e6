"""Rollouts by the forward pass of transformers: `ppo.sampler: transformers`.

vLLM schedules each sequence at each step, in Python: of a model of few weights that is most of its work. Here
a step is one pass for the whole batch. A prompt is read once, however many answers it gets, and an answer
that has ended leaves the batch soon; transformers' own `generate` goes on with it until the last one ends.
Shapes: B rollouts, A of them in the batch, U different prompts of P tokens (padded on the left), C tokens so
far, S of them newly read, T tokens of the longest answer, V vocabulary.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_model
from torch import Tensor
from transformers import DynamicCache

from limbeck import chat as chats
from limbeck.config import Chat, Dtype
from limbeck.sampling import Sample, SampleRequest
from limbeck.trainer.engines import device
from limbeck.trainer.networks import WEIGHTS, load_frozen_policy, load_tokenizer
from limbeck.trainer.tokens import pad_left

PADDING = 0
"""Before a prompt and behind an answer: any token of the vocabulary, as nothing looks at it."""
LEAVING = 1 / 8
"""Ended answers leave once they are this share of a batch: each time the others' keys are copied."""


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
        self._model.config.output_router_logits = False  # for a loss of experts, which sampling has none of
        self._tokenizer = load_tokenizer(folder)
        self._batch_size = batch_size
        self._prompt_ids = chats.asking(self._tokenizer, chat)
        # Where vLLM ends an answer too. What else a checkpoint says of sampling decides nothing there either.
        ends = self._model.generation_config.eos_token_id
        found = {self._tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        self._ends = torch.tensor(sorted(found), dtype=torch.long, device=device())

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
        tokens_B_T, logprobs_B_T, counts_B = (item.tolist() for item in self._drawn(requests))
        answers = [ids[:count] for ids, count in zip(tokens_B_T, counts_B, strict=True)]
        told = [logprobs[:count] for logprobs, count in zip(logprobs_B_T, counts_B, strict=True)]
        ends = set(self._ends.tolist())
        ended = [ids[-1] in ends for ids in answers]
        # As vLLM does: what ends an answer is one of its tokens and not of its text.
        texts = self._tokenizer.batch_decode(
            [ids[:-1] if end else ids for ids, end in zip(answers, ended, strict=True)],
            skip_special_tokens=True,
        )
        return [
            Sample(
                text=text.strip(),
                token_ids=ids,
                logprob=sum(logprobs) if request.logprobs else None,
                finish_reason="stop" if end else "length",
                token_logprobs=logprobs if request.token_logprobs else None,
            )
            for request, ids, end, text, logprobs in zip(requests, answers, ended, texts, told, strict=True)
        ]

    @torch.no_grad()
    def _drawn(self, requests: Sequence[SampleRequest]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens and their log-probabilities, B x T, of which the first so many of each row count, B.

        What an answer draws after its end, until it leaves the batch, is not counted.
        """
        where = device()
        limits = [request.max_tokens for request in requests]
        limits_B = torch.tensor(limits, device=where)
        temperature_B_1 = torch.tensor([request.temperature for request in requests], device=where)[:, None]
        # An answer's numbers are its own: which answers share a batch decides nothing.
        num_tokens = max(limits)
        numbers = [np.random.default_rng(request.seed).random(num_tokens) for request in requests]
        uniform_B_T = torch.from_numpy(np.stack(numbers)).to(where)
        tokens_B_T = torch.zeros(len(requests), num_tokens, dtype=torch.long, device=where)
        logprobs_B_T = torch.zeros(len(requests), num_tokens, device=where)
        counts_B = torch.zeros_like(limits_B)

        prompts = [tuple(cast(list[int], request.prompt)) for request in requests]
        place = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
        ids_U_P, mask_U_P = (tensor.to(where) for tensor in pad_left([*place], PADDING))
        cache = DynamicCache(config=self._model.config)
        logits_U_V = self._next_logits(ids_U_P, mask_U_P, cache)
        places_B = torch.tensor([place[prompt] for prompt in prompts], device=where)
        cache.batch_select_indices(places_B)
        logits_A_V, mask_A_C = logits_U_V[places_B], mask_U_P[places_B]
        rows_A = torch.arange(len(requests), device=where)
        going_A = torch.ones_like(rows_A, dtype=torch.bool)
        for step in range(num_tokens):
            tokens_A, logprobs_A = _draw(logits_A_V, uniform_B_T[rows_A, step, None], temperature_B_1[rows_A])
            tokens_B_T[rows_A, step], logprobs_B_T[rows_A, step] = tokens_A, logprobs_A
            counts_B[rows_A] += going_A
            going_A &= (counts_B < limits_B)[rows_A] & ~torch.isin(tokens_A, self._ends)
            num_going = int(going_A.sum())
            if not num_going:
                break
            # The context has room up to an answer's own limit and not beyond it.
            if step + 1 in limits or len(going_A) - num_going >= LEAVING * len(going_A):
                cache.batch_select_indices(going_A)
                rows_A, tokens_A, mask_A_C = rows_A[going_A], tokens_A[going_A], mask_A_C[going_A]
                going_A = going_A[going_A]
            mask_A_C = torch.cat([mask_A_C, torch.ones_like(mask_A_C[:, :1])], dim=1)
            logits_A_V = self._next_logits(tokens_A[:, None], mask_A_C, cache)
        return tokens_B_T, logprobs_B_T, counts_B

    def _next_logits(self, ids_A_S: Tensor, mask_A_C: Tensor, cache: DynamicCache) -> Tensor:
        """Logits after the newest S tokens, A x V; the cache has what came before, and takes them in."""
        positions_A_C = (mask_A_C.cumsum(dim=1) - 1).clamp(min=0)
        logits_A_1_V: Tensor = self._model(
            ids_A_S,
            attention_mask=mask_A_C,
            position_ids=positions_A_C[:, -ids_A_S.shape[1] :],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits_A_1_V[:, -1].float()


def _draw(logits_A_V: Tensor, uniform_A_1: Tensor, temperature_A_1: Tensor) -> tuple[Tensor, Tensor]:
    """The next token of each row, and its log-probability at temperature 1; each A.

    A token is where the cumulative probabilities pass a uniform number (inverse transform sampling).
    """
    passed_A_V = (logits_A_V / temperature_A_1).double().softmax(dim=1).cumsum(dim=1)
    # Rounding may leave their sum below 1, and a number above it would have no token.
    uniform_A_1 = (uniform_A_1 * passed_A_V[:, -1:]).contiguous()
    token_A_1 = torch.searchsorted(passed_A_V, uniform_A_1, right=True).clamp(max=logits_A_V.shape[1] - 1)
    logprob_A_1 = logits_A_V.log_softmax(dim=1).gather(1, token_A_1)
    return token_A_1.squeeze(1), logprob_A_1.squeeze(1)
