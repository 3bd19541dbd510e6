"""Policies that earn a teacher's verdicts: tiny models on real engines, the teacher's in its own process."""

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from limbeck.config import Config, parse_config
from limbeck.engine_process import EngineProcess
from limbeck.judging import Verdict
from limbeck.records import PpoPrompt
from limbeck.rollout_judge import TeacherJudge
from limbeck.sampler import VllmSampler
from limbeck.saver import Saver
from limbeck.trainer.group_relative import train_group_relative
from limbeck.trainer.ppo import train_ppo
from tests import saving, tiny
from tests.engines import open_process
from tests.trainer.conftest import PROMPTS, has_w

pytestmark = pytest.mark.usefixtures("forked_engines")
SETTINGS: dict[str, Any] = {
    "num_updates": 10,
    "batch_size": 64,
    "samples_per_prompt": 8,
    "num_minibatches": 2,
    "max_tokens": 6,
    "learning_rate": 1e-2,
    "value_learning_rate": 1e-2,
    "kl_coef": 0.0,
    "critic_warmup_updates": 1,
    "evaluate_every": 5,
    "missing_eos_penalty": 0.0,
    "anneal_lr": False,
}


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    engine = open_process(tiny.checkpoint(tmp_path_factory.mktemp("teacher") / "model", seed=5))
    yield engine
    engine.close()


class Watched:
    """A judge whose verdicts are kept; its engine is killed before one of the rounds, if that is wanted."""

    def __init__(self, engine: EngineProcess, config: Config, killed_at: int | None = None) -> None:
        questions = {prompt.prompt_id: prompt.message for prompt in PROMPTS}
        self.engine, self.killed_at = engine, killed_at
        self.judge = TeacherJudge(engine, questions, (), config)
        self.rounds: list[list[Verdict]] = []

    def __call__(
        self, prompts: Sequence[PpoPrompt], texts: Sequence[str], seeds: Sequence[int]
    ) -> list[Verdict]:
        if len(self.rounds) == self.killed_at:
            os.kill(self.engine.pid, signal.SIGKILL)
        self.rounds.append(self.judge(prompts, texts, seeds))
        return self.rounds[-1]


def train(
    folder: Path,
    student: Path,
    reward_folder: Path,
    sampler: VllmSampler,
    teacher: EngineProcess,
    *,
    resume: Path | None = None,
    saver: Saver | None = None,
    killed_at: int | None = None,
    max_model_len: int = 64,
    **ppo: Any,
) -> tuple[list[dict[str, float]], Watched]:
    """The rounds of a run, and its judge."""
    template = "judge {prompt} : {completion} = {first} {second}"
    config = parse_config(
        {
            "student": {"dtype": "float32"},
            "engine": {"max_model_len": max_model_len},
            "judge": {"template": template},
            "ppo": SETTINGS | ppo,
        }
    )
    folder.mkdir()
    sampler.load_weights(student)
    judge = Watched(teacher, config, killed_at)
    run = (train_ppo if config.ppo.algorithm == "ppo" else train_group_relative)(
        student,
        reward_folder,
        sampler,
        PROMPTS,
        PROMPTS[:8],
        has_w,
        "judge",
        config,
        folder,
        resume,
        saver or saving.no_saver(),
        judge,
    )
    return [entry for entry in run.course.history if "ppo/score" in entry], judge


def test_a_policy_learns_what_the_teacher_likes_and_goes_on_alike_when_both_are_killed(
    tmp_path: Path, student: Path, reward_folder: Path, sampler: VllmSampler, teacher: EngineProcess
) -> None:
    with saving.keeping(tmp_path) as (saver, kept):
        whole, judge = train(tmp_path / "whole", student, reward_folder, sampler, teacher, saver=saver)
    for entry, verdicts in zip(whole, judge.rounds, strict=True):
        assert entry["ppo/score"] == pytest.approx(fmean(item.p_correct or 0.0 for item in verdicts))
        assert entry["ppo/unjudged"] == 0.0
        assert entry["ppo/judge_tokens"] == 64.0
        assert entry["ppo/proxy"] == pytest.approx(0.5), "the reward model knows nothing, and still watches"
    assert whole[-1]["ppo/score"] > whole[0]["ppo/score"] + 0.1

    update, state = saving.middle(kept)
    resumed, judge = train(
        tmp_path / "resumed", student, reward_folder, sampler, teacher, resume=state, killed_at=1
    )
    assert len(judge.rounds) == 10 - update
    for one, other in zip(whole, resumed, strict=True):
        assert one["ppo/score"] == pytest.approx(other["ppo/score"], abs=1e-3)


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_the_first_round_earns_alike_with_every_algorithm(
    tmp_path: Path,
    student: Path,
    reward_folder: Path,
    sampler: VllmSampler,
    teacher: EngineProcess,
    algorithm: str,
) -> None:
    few: dict[str, Any] = {"num_updates": 1, "num_ppo_epochs": 1, "num_minibatches": 1}
    first = {
        name: train(tmp_path / name, student, reward_folder, sampler, teacher, algorithm=name, **few)[0][0]
        for name in ("ppo", algorithm)
    }
    for metric in ("score", "unjudged", "judge_prompt_tokens", "judge_tokens"):
        name = f"ppo/{metric}"
        assert first[algorithm][name] == pytest.approx(first["ppo"][name], abs=1e-5), name


def test_a_rollout_that_the_judge_cannot_read_earns_nothing_and_is_counted(
    tmp_path: Path, student: Path, reward_folder: Path, sampler: VllmSampler, teacher: EngineProcess
) -> None:
    """The judge's context holds a completion of three letters, and no longer one."""
    few: dict[str, Any] = {"num_updates": 1, "num_ppo_epochs": 1, "max_model_len": 14}
    (entry,), judge = train(tmp_path / "run", student, reward_folder, sampler, teacher, **few)
    (verdicts,) = judge.rounds
    unread = [item for item in verdicts if item.p_correct is None]
    assert 0 < len(unread) < 64
    assert entry["ppo/unjudged"] == len(unread) / 64
    assert entry["ppo/score"] == pytest.approx(sum(item.p_correct or 0.0 for item in verdicts) / 64)
