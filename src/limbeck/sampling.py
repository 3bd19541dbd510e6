"""What is asked of a sampling engine, and what it gives back; imports nothing heavy.

`limbeck.engine_process.EngineProcess` is what the row stages use: an engine in a process of its own,
which answers as requests finish. `limbeck.openai_sampler.OpenAISampler` asks a black box over the network
instead. `limbeck.sampler.VllmSampler` is the engine itself: PPO holds it in its own process, or
`limbeck.trainer.transformers_sampler.TransformersSampler` in its place. Tests may pass
scripted ones.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from limbeck.errors import EndpointError

ChatPrompt = list[int] | str
"""Token ids in the model's chat template; or the user message itself, where only the server knows those."""


@dataclass(frozen=True)
class SampleRequest:
    """One completion to sample. The stages that ask a model make these."""

    prompt: ChatPrompt
    temperature: float
    max_tokens: int
    seed: int | None = None
    top_p: float = 1.0
    logprobs: bool = False
    """Whether `Sample.logprob` is wanted."""
    token_logprobs: bool = False
    """Whether `Sample.token_logprobs` are; engines alone give them."""
    verdict: tuple[str, str] | None = None
    """Two words, such as yes and no: what is wanted is `Sample.p_first`, read from the first token."""


@dataclass(frozen=True)
class Usage:
    """What a server has counted, and bills."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Sample:
    """One sampled completion."""

    text: str
    """Without special tokens, and without the space that some tokenizers put first."""
    token_ids: list[int]
    """Includes the end-of-turn token when the model ended by itself; empty where `usage` counts them."""
    logprob: float | None
    """Sum of the tokens' log-probabilities at temperature 1; None when not asked for, or not offered."""
    finish_reason: str
    p_first: float | None = None
    """P(first) / (P(first) + P(second)) of the two verdict words at the first token; None without them."""
    usage: Usage | None = None
    """Of a black box alone."""
    token_logprobs: list[float] | None = None
    """Those of `token_ids`, each at temperature 1; None when not asked for."""

    @property
    def num_tokens(self) -> int:
        """Tokens of the completion."""
        return self.usage.completion_tokens if self.usage else len(self.token_ids)

    def num_prompt_tokens(self, prompt: ChatPrompt) -> int:
        """Tokens of the prompt that it answers."""
        return self.usage.prompt_tokens if self.usage else len(prompt)


class RefusedError(EndpointError):
    """A server refuses one request for good; the others go on. Given in place of its answer."""


Answer = Sample | RefusedError


class StreamingSampler(Protocol):
    """What the row stages ask of an engine: rows in, answers out as they finish."""

    def chat_prompt(self, user_message: str) -> ChatPrompt:
        """What a request holds to send a user message; works while the engine is down."""

    def stream(self, requests: Iterable[tuple[int, SampleRequest]]) -> Iterator[tuple[int, Answer]]:
        """Answers with their requests' numbers, in the order in which they finish.

        Requests are taken as the engine has room, so they may be made on the way.

        Raises:
            EngineError: when the engine died or stalled; what was not answered by then is lost.
            EndpointError: when a server is away for too long, or refuses everything.
        """

    def restart(self) -> None:
        """End what is left of the engine and start it again, with the same weights.

        Raises:
            EngineError: when it does not come up.
        """

    def close(self) -> None:
        """Free the engine's memory."""


class Sampler(Protocol):
    """What PPO's rollouts ask of an engine: a batch in, its answers in order or as they finish."""

    def prompt_ids(self, user_message: str) -> list[int]:
        """Token ids of a user message in the model's chat template, up to where the answer begins."""

    def sample(self, requests: Sequence[SampleRequest]) -> list[Sample]:
        """One sample for each request, in order."""

    def stream(self, requests: Iterable[tuple[int, SampleRequest]]) -> Iterator[tuple[int, Sample]]:
        """The same as they finish, with their requests' numbers."""

    def close(self) -> None:
        """Free the engine's memory."""


class LiveSampler(Sampler, Protocol):
    """A sampler whose weights can be replaced in place: what PPO needs."""

    def load_weights(self, folder: Path) -> None:
        """Take over the weights of a folder of the same shape; the next sample comes from them."""


OpenSampler = Callable[[], StreamingSampler]
"""Loads a model. Stages call it only when there is work to do: an engine costs many seconds."""


def too_long(prompt: ChatPrompt, room: int) -> str:
    """How a prompt exceeds its room in tokens, or nothing; of a message only its server can say."""
    if isinstance(prompt, str) or len(prompt) <= room:
        return ""
    return f"{len(prompt)} tokens, room for {room}"
