"""How a completion is put to the judge, and how its verdicts are read: alike for `judge`, `ppo`, `evaluate`.

The judge is asked whether an answer is correct or, of an open question, good.

P(correct) is read from the probabilities of the verdict's first token, so one token a verdict is
enough. Source: self-evaluation as in arXiv 2207.05221 (P(True)); that the teacher judges its own
answers is the method's (arXiv 2502.19557); the prompts and this reading of them are ours.

A judge may favour the word that is named first. Several verdicts name both words in both orders, and
their mean is P(correct). Source: asking in both orders, arXiv 2306.05685, section 3.4; the mean is ours.
"""

import re
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import NamedTuple

from limbeck.config import Config
from limbeck.records import PpoPrompt
from limbeck.sampling import ChatPrompt, Sample, SampleRequest, too_long
from limbeck.thinking import without_thinking


class Verdict(NamedTuple):
    """What the judge says of one completion."""

    p_correct: float | None = None
    """0 to 1; None when no verdict is either word, or none was given."""
    p_yes_first: float | None = None
    """Of the verdicts that name yes first, and the next of those that name no first."""
    p_no_first: float | None = None
    num_prompt_tokens: int = 0
    """Of all verdicts, as is the next."""
    num_tokens: int = 0


RolloutJudge = Callable[[Sequence[PpoPrompt], Sequence[str], Sequence[int]], list[Verdict]]
"""Judges rollouts: prompts, completions and seeds, one each, to verdicts in order."""


def verdict_requests(
    prompt: str, completion: str, to_prompt: Callable[[str], ChatPrompt], config: Config, seed: int = 0
) -> list[SampleRequest]:
    """What the judge is asked of one completion: `judge.votes` tokens.

    Args:
        prompt: What was asked.
        completion: The answer as it was sampled.
        to_prompt: How the judge's engine is sent a message.
        config: `judge`, and of `task` the kind and `strip_thinking`, are read.
        seed: Of the first vote; each further one has the next.
    """
    judge = config.judge
    shown = without_thinking(completion) if config.task.strip_thinking else completion
    orders = [
        to_prompt(_message(config, prompt, shown, swapped=swapped))
        for swapped in (False, True)[: judge.votes]
    ]
    return [
        SampleRequest(orders[vote % 2], judge.temperature, 1, seed=seed + vote, verdict=(judge.yes, judge.no))
        for vote in range(judge.votes)
    ]


def too_long_to_judge(requests: Sequence[SampleRequest], config: Config) -> str:
    """Why the judge cannot be asked: how its prompt exceeds its context; empty when it fits."""
    longest = max((request.prompt for request in requests), key=len)
    excess = too_long(longest, config.engine.max_model_len - 1)
    return f"judge prompt too long: {excess}" if excess else ""


def read_verdict(requests: Sequence[SampleRequest], samples: Sequence[Sample]) -> Verdict:
    """What all votes on one completion say together; no samples are no verdict."""
    votes = [sample.p_first for sample in samples]
    answered = list(zip(requests, samples, strict=False))
    return Verdict(
        p_correct=_mean(votes),
        p_yes_first=_mean(votes[0::2]),
        p_no_first=_mean(votes[1::2]),
        num_prompt_tokens=sum(sample.num_prompt_tokens(request.prompt) for request, sample in answered),
        num_tokens=sum(sample.num_tokens for sample in samples),
    )


def _message(config: Config, prompt: str, completion: str, *, swapped: bool) -> str:
    """The judge prompt, with the two words in one order or the other.

    Prompt and completion may hold braces of their own, so everything is replaced in one pass.
    """
    words = config.judge.yes, config.judge.no
    first, second = reversed(words) if swapped else words
    slots = {"{prompt}": prompt, "{completion}": completion, "{first}": first, "{second}": second}
    return re.sub("|".join(map(re.escape, slots)), lambda found: slots[found[0]], config.judge_template)


def _mean(votes: Sequence[float | None]) -> float | None:
    """The mean of those that were given; a text that is neither word is none."""
    given = [vote for vote in votes if vote is not None]
    return fmean(given) if given else None
