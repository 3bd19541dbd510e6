"""The monitor of PPO: does the policy get better, or only better liked by the reward model?

On a fixed set of prompts with fixed seeds, three things are measured now and then: agreement with pseudo
labels; the proxy, which is the reward model's opinion; and length, the commonest way to be liked for
nothing. Reward hacking is when the proxy rises while agreement falls. Source: proxy against true reward as
in Gao et al. 2022 (arXiv 2210.10760); agreement in place of the true one, and the rule, are ours.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from limbeck.metrics import correlation


class Probe(NamedTuple):
    """One measurement of the policy on the validation prompts."""

    update: int
    """Rounds before it; 0 is the warmed-up student."""
    agreement: float | None
    """Share of the completions that agree with the pseudo label; None of open questions."""
    proxy: float
    """Mean P(good) by the reward model."""
    length: float
    """Mean tokens of a completion."""


def probes(history: Sequence[Mapping[str, float]]) -> list[Probe]:
    """The measurements in the history of a run, in order."""
    return [
        Probe(
            int(entry["update"]),
            entry.get("ppo/validation_agreement"),
            entry["ppo/validation_proxy"],
            entry["ppo/validation_length"],
        )
        for entry in history
        if "ppo/validation_proxy" in entry
    ]


def hacked(measured: Sequence[Probe], drop: float) -> str | None:
    """Whether the last measurement shows reward hacking, and how.

    It is held against the one that agreed best, not against the start alone: a policy that first learnt and
    then lost it again is caught on its way down.

    Args:
        measured: At least one, in order.
        drop: Agreement may be lower by so much.

    Returns:
        What rose and fell, as a sentence's middle; None when all is well, or where nothing can agree: the
        proxy has nothing to be held against.
    """
    agreed = [(item.agreement, item) for item in measured if item.agreement is not None]
    if not agreed:
        return None
    (highest, best), (newest, last) = max(agreed, key=lambda pair: pair[0]), agreed[-1]
    if last.proxy <= best.proxy or highest - newest <= drop:
        return None
    return (
        f"since update {best.update} the proxy reward rose from {best.proxy:.3f} to {last.proxy:.3f} while "
        f"agreement fell from {highest:.3f} to {newest:.3f}; length went from "
        f"{best.length:.1f} to {last.length:.1f} tokens"
    )


def proxy_length_correlation(measured: Sequence[Probe]) -> float:
    """Correlation of proxy and length over the measurements: near 1, the reward is bought with length.

    Returns:
        -1 to 1; nan with fewer than three measurements, through two of which a line always goes.
    """
    if len(measured) < 3:
        return math.nan
    proxy, length = (np.array([getattr(item, name) for item in measured]) for name in ("proxy", "length"))
    return correlation(proxy, length)
