"""The tokens of a stage, and what those of a black-box teacher cost, from its rows."""

from collections.abc import Iterable
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


def spent(
    names: tuple[str, str, str], rows: Iterable[Counted], server: OpenAIConfig | None
) -> dict[str, float]:
    """Tokens and cost of a stage.

    All attempts together, as finished rows carry what they took. Not known, and not in it: answers that were
    lost in a kill and asked for again, what refused rows took, and discounts such as for cached prompts.

    Args:
        names: What prompt tokens, completion tokens and cost are called in the manifest.
        rows: All rows of the stage.
        server: The prices of a black box; None where the model runs here.

    Returns:
        Metrics; the cost is left out without prices. It is in their currency.
    """
    prompt_tokens = completion_tokens = 0
    for row in rows:
        prompt_tokens += row.num_prompt_tokens
        completion_tokens += row.num_tokens
    found = [float(prompt_tokens), float(completion_tokens)]
    if server and server.prompt_price is not None and server.completion_price is not None:
        found.append(
            (prompt_tokens * server.prompt_price + completion_tokens * server.completion_price) / 1e6
        )
    return dict(zip(names, found, strict=False))
