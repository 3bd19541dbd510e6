"""The tokens of a stage, and what those of a black-box teacher cost, from its rows."""

from dataclasses import dataclass
from typing import Protocol

from limbeck.config import OpenAIConfig


class Counted(Protocol):
    """A row that knows what it took."""

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of what was asked."""

    @property
    def num_tokens(self) -> int:
        """Tokens of the answer."""


@dataclass
class Tokens:
    """What rows took, added up as they come."""

    prompt: int = 0
    completion: int = 0

    def add(self, row: Counted) -> None:
        """Count one more row."""
        self.prompt += row.num_prompt_tokens
        self.completion += row.num_tokens


def spent(names: tuple[str, str, str], tokens: Tokens, server: OpenAIConfig | None) -> dict[str, float]:
    """Tokens and cost of a stage.

    All attempts together, as finished rows carry what they took. Not known, and not in it: answers that were
    lost in a kill and asked for again, what refused rows took, and discounts such as for cached prompts.

    Args:
        names: What prompt tokens, completion tokens and cost are called in the manifest.
        tokens: Of all rows of the stage.
        server: The prices of a black box; None where the model runs here.

    Returns:
        Metrics; the cost is left out without prices. It is in their currency.
    """
    found = [float(tokens.prompt), float(tokens.completion)]
    if server and server.prompt_price is not None and server.completion_price is not None:
        found.append(
            (tokens.prompt * server.prompt_price + tokens.completion * server.completion_price) / 1e6
        )
    return dict(zip(names, found, strict=False))
