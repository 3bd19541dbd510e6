"""What a run of reinforcement learning tells of itself in its manifest, from its course."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from limbeck.config import Config, PpoReward
from limbeck.hacking import probes, proxy_length_correlation
from limbeck.jobs import Course
from limbeck.progress import say
from limbeck.spending import spent

SPENT = ("ppo/prompt_tokens", "ppo/completion_tokens", "ppo/cost")


def of_course(course: Course, reward: PpoReward, config: Config) -> dict[str, float]:
    """The metrics of a run, and a line that says which policy is kept."""
    buys_length = proxy_length_correlation(probes(course.history))
    with_length = {} if math.isnan(buys_length) else {"ppo/proxy_length_correlation": buys_length}
    return {
        **_agreements(course, reward, config),
        "ppo/best_update": float(course.best_update),
        "ppo/num_updates": float(course.update),
        "ppo/stopped_by_monitor": float(course.stopped),
        **with_length,
        **_of_the_judge(course.history, config),
    }


def _agreements(course: Course, reward: PpoReward, config: Config) -> dict[str, float]:
    """Tell which policy is kept; its agreement, where anything can agree."""
    if config.task.is_open:
        say(f"ppo({reward}): the policy of update {course.best_update} is kept, by its KL alone")
        return {}
    say(
        f"ppo({reward}): best policy is of update {course.best_update}, validation agreement "
        f"{course.start_agreement:.3f} -> {course.best_agreement:.3f}"
    )
    return {
        "ppo/validation_agreement": course.best_agreement,
        "ppo/start_agreement": course.start_agreement,
    }


class _Round(NamedTuple):
    """What the judge took in one round."""

    num_prompt_tokens: int
    num_tokens: int


def _of_the_judge(history: Sequence[Mapping[str, float]], config: Config) -> dict[str, float]:
    """The judge over all rounds; nothing where none was asked."""
    rounds = [entry for entry in history if "ppo/unjudged" in entry]
    if not rounds:
        return {}
    metrics = {"ppo/unjudged": fmean(entry["ppo/unjudged"] for entry in rounds)}
    if config.asks_a_server("teacher"):
        took = [
            _Round(int(entry["ppo/judge_prompt_tokens"]), int(entry["ppo/judge_tokens"])) for entry in rounds
        ]
        metrics |= spent(SPENT, took, config.openai)
    return metrics
