"""How a model is asked whether an answer is correct or, of an open question, good; and what it said.

P(correct) is read from the probabilities of the verdict's first token, so one token a verdict is enough.
Source: self-evaluation as in arXiv 2207.05221 (P(True)); the prompts and this reading of it are ours.

A judge may favour the word that is named first. Several verdicts name both words in both orders, and their
mean is P(correct). Source: asking in both orders, arXiv 2306.05685, section 3.4; the mean is ours.
"""

import re
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import NamedTuple

from limbeck.config import Config
from limbeck.sampling import ChatPrompt, Sample, SampleRequest, too_long
from limbeck.thinking import without_thinking


class Verdicts(NamedTuple):
    """What the judge is asked about one answer."""

    requests: list[SampleRequest]
    """One for each of `judge.votes`."""
    excess: str
    """How a judge prompt is too long for the context; empty when it fits."""


class Verdict(NamedTuple):
    """What the judge said of one answer, P(correct) each time."""

    p_correct: float
    """The mean over the verdicts that are one of the two words; 0 without any."""
    p_yes_first: float | None
    """The mean of those whose question names the word for correct first; None without any."""
    p_no_first: float | None


def ask(question: str, answer: str, to_prompt: Callable[[str], ChatPrompt], config: Config) -> Verdicts:
    """The questions to the judge about one answer.

    Args:
        question: What the answer is to.
        answer: A completion as it was sampled; thoughts are taken out where `task.strip_thinking` says so.
        to_prompt: Makes the judge's prompt of a user message.
        config: `judge`, `task` and `engine.max_model_len` are read.
    """
    judge = config.judge
    shown = without_thinking(answer) if config.task.strip_thinking else answer
    orders = [
        to_prompt(_message(config, question, shown, swapped=swapped))
        for swapped in (False, True)[: judge.votes]
    ]
    requests = [
        SampleRequest(orders[vote % 2], judge.temperature, 1, seed=vote, verdict=(judge.yes, judge.no))
        for vote in range(judge.votes)
    ]
    excess = too_long(max(orders, key=len), config.engine.max_model_len - 1)
    return Verdicts(requests, f"judge prompt too long: {excess}" if excess else "")


def said(samples: Sequence[Sample]) -> Verdict:
    """What the judge's answers say, in the order of the questions; none where it was not asked."""
    verdicts = [sample.p_first for sample in samples]
    return Verdict(_mean(verdicts) or 0.0, _mean(verdicts[0::2]), _mean(verdicts[1::2]))


def _message(config: Config, question: str, answer: str, *, swapped: bool) -> str:
    """The judge prompt, with the two words in one order or the other.

    Question and answer may hold braces of their own, so everything is replaced in one pass.
    """
    words = config.judge.yes, config.judge.no
    first, second = reversed(words) if swapped else words
    slots = {"{prompt}": question, "{completion}": answer, "{first}": first, "{second}": second}
    return re.sub("|".join(map(re.escape, slots)), lambda found: slots[found[0]], config.judge_template)


def _mean(verdicts: Sequence[float | None]) -> float | None:
    """The mean of those that were given; a text that is neither word is none."""
    given = [verdict for verdict in verdicts if verdict is not None]
    return fmean(given) if given else None
