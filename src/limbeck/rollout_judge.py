"""The teacher as the reward of reinforcement learning: it judges the rollouts of a round, all at once.

A rollout earns the P(correct) that `judge` would give such a completion, calibrated where `label` does that.
One that cannot be judged (the judge's prompt is too long, kills the engine, or is refused) has no verdict.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import NamedTuple

import numpy as np

from limbeck.calibration import Line, fold, from_metrics
from limbeck.config import Config
from limbeck.errors import DataError
from limbeck.judging import Verdict, read_verdict, too_long_to_judge, verdict_requests
from limbeck.manifest import Manifest
from limbeck.progress import say
from limbeck.records import PpoPrompt
from limbeck.sampling import OpenSampler, RefusedError, Sample, StreamingSampler
from limbeck.steady import answers, unless_all_refused


class Teacher(NamedTuple):
    """The model that judges, before it is loaded."""

    model_hash: str
    """What stands for its weights in the key of a result."""
    open_sampler: OpenSampler


def lines_of(labels: Manifest, config: Config) -> tuple[Line, ...]:
    """How P(correct) is calibrated, as `label` has fitted it; nothing where it is taken as it is.

    Raises:
        DataError: when the labels were made without.
    """
    if config.label.calibrate == "none":
        return ()
    if lines := from_metrics(labels.metrics):
        return lines
    raise DataError(
        "labels that know no calibration of the judge",
        where=labels.uri,
        expected="the fitted lines among their metrics (label.calibrate is majority)",
        got="none",
        remedy="Run `label` again with this setting, or set label.calibrate: none",
    )


class Judging(NamedTuple):
    """All that a judge of rollouts is made of, before the teacher is loaded."""

    open_sampler: OpenSampler
    """Loads the teacher."""
    questions: Mapping[str, str]
    """What is asked, by prompt; without the words of `task.prompt_template`, as in `judge`."""
    lines: Sequence[Line]
    """From `lines_of`."""


@contextmanager
def opened(judging: Judging, config: Config) -> Iterator["TeacherJudge"]:
    """The judge while the teacher is loaded; see `TeacherJudge`."""
    with closing(judging.open_sampler()) as sampler:
        yield TeacherJudge(sampler, judging.questions, judging.lines, config)


class TeacherJudge:
    """A `RolloutJudge`: the teacher in an engine of its own, or a black box."""

    def __init__(
        self,
        sampler: StreamingSampler,
        questions: Mapping[str, str],
        lines: Sequence[Line],
        config: Config,
    ) -> None:
        """Ask nothing yet.

        Args:
            sampler: Holds the teacher; whoever opened it closes it.
            questions: What is asked, by prompt; without the words of `task.prompt_template`, as in `judge`.
            lines: From `lines_of`.
            config: `judge`, `task.strip_thinking`, `engine.max_model_len` and `engine.max_restarts` are read.
        """
        self._sampler, self._questions, self._lines, self._config = sampler, questions, lines, config
        self._proven = False

    def __call__(
        self, prompts: Sequence[PpoPrompt], texts: Sequence[str], seeds: Sequence[int]
    ) -> list[Verdict]:
        """A verdict on each completion, in order.

        Args:
            prompts: What the policy was asked.
            texts: Its completions, one each.
            seeds: Of their first votes: a round that is done again is judged alike.

        Raises:
            ConfigError: when `judge.yes` and `judge.no` begin with the same token.
            EngineError: when the engine died more than `engine.max_restarts` times in this round.
            EndpointError: when the server of a black box is away for too long, or refuses everything.
        """
        asked = [
            verdict_requests(
                self._questions[prompt.prompt_id], text, self._sampler.chat_prompt, self._config, seed
            )
            for prompt, text, seed in zip(prompts, texts, seeds, strict=True)
        ]
        excess = [too_long_to_judge(requests, self._config) for requests in asked]
        reasons = {place: why for place, why in enumerate(excess) if why}
        votes = [
            (place, vote)
            for place, requests in enumerate(asked)
            if place not in reasons
            for vote in range(len(requests))
        ]
        samples: dict[tuple[int, int], Sample] = {}
        found = answers(
            self._sampler,
            enumerate(asked[place][vote] for place, vote in votes),
            max_restarts=self._config.engine.max_restarts,
            proven=self._proven,
        )
        for number, answer in unless_all_refused(found, proven=self._proven):
            place, vote = votes[number]
            if isinstance(answer, Sample):
                samples[place, vote] = answer
                self._proven = True
            else:
                why = "refused" if isinstance(answer, RefusedError) else "kills the engine"
                reasons[place] = f"{why}: {answer}"
        if reasons:
            say(f"{len(reasons)} of {len(asked)} rollouts have no verdict; {next(iter(reasons.values()))}")
        return [
            Verdict()
            if place in reasons
            else self._calibrated(
                read_verdict(requests, [samples[place, vote] for vote in range(len(requests))]),
                prompts[place].prompt_id,
            )
            for place, requests in enumerate(asked)
        ]

    def _calibrated(self, verdict: Verdict, prompt_id: str) -> Verdict:
        """A verdict as `label` would take it: by the line of its prompt's part, if there are any."""
        if not self._lines or verdict.p_correct is None:
            return verdict
        line = self._lines[fold(prompt_id)]
        return verdict._replace(p_correct=float(line.through(np.array(verdict.p_correct))))
