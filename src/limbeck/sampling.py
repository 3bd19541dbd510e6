"""What a stage asks of a sampling engine, and what it gets back; imports nothing heavy.

`limbeck.sampler.VllmSampler` is the real engine; tests may pass a scripted one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class SampleRequest:
    """One completion to sample. `generate`, `evaluate` and `ppo` make these."""

    prompt_ids: list[int]
    temperature: float
    max_tokens: int
    seed: int | None = None
    top_p: float = 1.0


@dataclass(frozen=True)
class Sample:
    """One sampled completion."""

    text: str
    """Without special tokens, and without the space that some tokenizers put first."""
    token_ids: list[int]
    """Includes the end-of-turn token when the model ended by itself."""
    logprob: float
    """Sum of the tokens' log-probabilities at temperature 1; 0 when not asked for."""
    finish_reason: str


class Sampler(Protocol):
    """What stages ask of an engine. `VllmSampler` is the real one."""

    def prompt_ids(self, user_message: str) -> list[int]:
        """Token ids of a user message in the model's chat template, up to where the answer begins."""

    def sample(self, requests: Sequence[SampleRequest], *, logprobs: bool = False) -> list[Sample]:
        """One sample for each request, in order."""

    def p_yes(self, prompts: Sequence[list[int]], yes: str, no: str) -> list[float]:
        """P(yes) / (P(yes) + P(no)) of the first token after each prompt."""

    def close(self) -> None:
        """Free the engine's memory."""


class LiveSampler(Sampler, Protocol):
    """A sampler whose weights can be replaced in place: what PPO needs."""

    def load_weights(self, folder: Path) -> None:
        """Take over the weights of a folder of the same shape; the next sample comes from them."""


OpenSampler = Callable[[], Sampler]
"""Loads a model. Stages call it only when there is work to do: an engine costs many seconds."""
