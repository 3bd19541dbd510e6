"""What `prepare` says of the two sides of a data set: how long their prompts are, and what was alike.

Written by `prepare` as `statistics.json` beside the prompts of each side; read by `report`. How hard a prompt
is shows only when models have answered it: by the votes, in the label report. Before, its length and its
numbers have to do.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from limbeck.errors import DataError

FILE = "statistics.json"
MAX_EXAMPLES = 10
"""Of each reason."""
MAX_EXAMPLE_CHARS = 500

Side = Literal["train", "held-out"]
Reason = Literal["near duplicate", "contaminated: n-gram", "contaminated: near duplicate"]
"""Why a train prompt leaves."""


class _Part(BaseModel):
    """Base of the parts: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Quantiles(_Part):
    """How a count is spread over the prompts; all 0 without prompts. The values are ones that occur."""

    p5: int
    """5% of the prompts have so many or fewer."""
    median: int
    p95: int
    maximum: int


class LikePair(_Part):
    """Two prompts that are too much alike, cut to 500 characters."""

    reason: Reason
    prompt_id: str
    prompt: str
    other_id: str
    """Of the prompt that stays."""
    other: str
    similarity: float | None
    """Jaccard similarity of the shingles, 0 to 1; None where a shared n-gram decided."""


class DataStatistics(_Part):
    """One side of a data set."""

    side: Side
    num_prompts: int
    """Those that stay."""
    words: Quantiles
    """Numbers and signs included; characters in scripts without spaces."""
    characters: Quantiles
    numbers: Quantiles
    """Written in digits."""
    num_alike: dict[Reason, int]
    """Train: how many left, by reason. Held-out: how many have a near-duplicate on their side; these stay."""
    num_from_templates: int
    """How many are like so many others that they count as one filled-in template, and stay."""
    examples: tuple[LikePair, ...]
    """Up to 10 of each reason, those with the lowest ids, which are hashes: nobody chose them."""


def quantiles(values: Sequence[int]) -> Quantiles:
    """How counts are spread."""
    if not len(values):
        return Quantiles(p5=0, median=0, p95=0, maximum=0)
    found = np.quantile(np.asarray(values), [0.05, 0.5, 0.95, 1.0], method="inverted_cdf")
    p5, median, p95, maximum = (int(value) for value in found)
    return Quantiles(p5=p5, median=median, p95=p95, maximum=maximum)


def parse_statistics(content: bytes, where: str) -> DataStatistics:
    """Read what `prepare` wrote.

    Raises:
        DataError: when it is something else.
    """
    try:
        return DataStatistics.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            "not the statistics of prompts",
            where=where,
            expected="the JSON that `prepare` writes",
            got=f"{first['msg']} at {'.'.join(map(str, first['loc'])) or 'the top'}",
            remedy="Run the stage `prepare` again",
        ) from error
