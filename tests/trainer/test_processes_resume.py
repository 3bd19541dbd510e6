"""Trainings in two processes lose one of them, are stopped, and go on in two or in one: the same result.

The real tasks, torchrun and a real store.
"""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load, load_file

from limbeck import processes
from limbeck.config import Config, parse_config
from limbeck.jobs import RewardRun, SftRun
from limbeck.manifest import Manifest
from limbeck.rows import write_rows
from limbeck.storage import Store
from limbeck.trainer.networks import Scorer, load_tokenizer, save_checkpoint
from limbeck.trainer.reward import train_reward
from limbeck.trainer.sft import train_sft
from tests import saving, tiny
from tests.engines import ENGINE
from tests.given import artifact, ppo_artifacts
from tests.stage_process import finish, start
from tests.trainer.processes_cases import rows

PATIENCE_SECONDS = 600.0
NUM_STEPS = 150
"""Of sft and reward."""
NUM_UPDATES = 16
"""Of ppo; few, since a rounded logprob may draw another token, and each update draws 96 of them."""
SETTINGS: dict[str, Any] = {
    "restart_seconds": 0.1,
    "teacher": {"dtype": "float32"},
    "student": {"dtype": "float32"},
    "task": {"answer_pattern": r"([a-w])"},
    "engine": ENGINE.model_dump(),
}
WORKERS = {"limbeck.trainer.worker", "limbeck.tasks.policy_ranks"}
DEEPSPEED: dict[str, Any] = {"checkpoint_seconds": 0.1, "gradient_checkpointing": False}


class Training(NamedTuple):
    """A stage, and its settings."""

    stage: str
    output: str
    settings: dict[str, Any]
    num_steps: int


SFT = Training("sft", "checkpoint", {"max_steps": NUM_STEPS}, NUM_STEPS)
REWARD = Training(
    "reward",
    "reward_model",
    {"num_epochs": (NUM_STEPS - 0.5) * 4 / 23, "evaluate_every": NUM_STEPS, "min_auc": 0.0},
    NUM_STEPS,
)
PPO = Training(
    "ppo",
    "policy",
    {
        "num_updates": NUM_UPDATES,
        "batch_size": 16,
        "max_tokens": 6,
        "evaluate_every": NUM_UPDATES,
        "critic_warmup_updates": 1,
        "adaptive_kl": True,
        "sampler": "transformers",  # test_processes_ppo.py has vLLM's engines
    },
    NUM_UPDATES,
)
Course = tuple[list[dict[str, float]], dict[str, torch.Tensor]]
"""Of a training: its history, and the weights it ends with."""


@pytest.fixture(scope="module")
def given(store: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the two components take."""
    folder, uri = tmp_path_factory.mktemp("given"), "s3://test/processes"
    base = tiny.checkpoint(folder / "model")

    def labelled(source: str) -> dict[str, str]:
        content = [row for row in rows() if row.source == source]
        name = f"{uri}/{source}"
        return artifact(store, folder, name, "labelled", [write_rows(store, name, content)])

    scorer = save_checkpoint(Scorer(base, "float32", None), load_tokenizer(base), folder / "scorer")
    for_ppo = ppo_artifacts(store, folder, uri, base, scorer)
    teacher = labelled("teacher")
    return {
        "sft": {"labelled": teacher, "model": str(base), "selection": "all"},
        "reward": {
            "teacher_labelled": teacher,
            "student_labelled": labelled("student"),
            "checkpoint": for_ppo["checkpoint"],
            "teacher": "",
        },
        "ppo": {**for_ppo, "reward": "mixed", "teacher": ""},
    }


@pytest.fixture(scope="module")
def unbroken(
    store: Store, tmp_path_factory: pytest.TempPathFactory, given: dict[str, Any]
) -> Callable[[Training], Course]:
    """The same trainings in one process that nothing happens to; ZeRO splits nothing there."""

    @cache
    def course(stage: str) -> Course:
        (training,) = (training for training in (SFT, REWARD, PPO) if training.stage == stage)
        folder = tmp_path_factory.mktemp(stage)
        asked = arguments(training, given, folder, "s3://test/unbroken", zero_stage=2, processes=1)
        if stage != "ppo":
            config = parse_config(asked["config"])
            return trained(stage, Path(given["sft"]["model"]), config, folder / "trained")
        finish(stage, folder, **asked)
        return made(store, folder / training.output)

    return lambda training: course(training.stage)


def arguments(
    training: Training, given: dict[str, Any], folder: Path, uri: str, *, zero_stage: int, processes: int
) -> dict[str, Any]:
    """What a stage's task takes."""
    outputs = {name: {"path": str(folder / name)} for name in (training.output, "metrics")}
    if training.stage == "sft":
        del outputs["metrics"]
    deepspeed = DEEPSPEED | {"zero_stage": zero_stage, "processes": processes}
    section = {"learning_rate": 1e-3, "batch_size": 8, **training.settings, "deepspeed": deepspeed}
    config = SETTINGS | {training.stage: section}
    return {**given[training.stage], **outputs, "work_uri": uri, "config": config}


def when(process: "subprocess.Popen[str]", ready: Callable[[], bool]) -> None:
    """Wait for a moment of a process's work."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not ready():
        assert process.poll() is None, process.communicate()[0][-5000:]
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.02)


def rank_of(task: int, rank: int) -> int | None:
    """The process of a task's training that has this rank."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # gone by now
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    for pid in parents:
        above = pid
        while above in parents and above != task:
            above = parents[above]
        if above == task and WORKERS.intersection(processes.command_line(pid)):
            with suppress(OSError):
                if f"RANK={rank}" in Path(f"/proc/{pid}/environ").read_text().split("\0"):
                    return pid
    return None


@pytest.mark.parametrize(
    ("training", "zero_stage", "first", "second"),
    [
        (SFT, 1, 2, 1),  # ZeRO 1 and 2 are one optimizer of DeepSpeed's
        (SFT, 3, 2, 1),
        (REWARD, 2, 2, 1),
        (REWARD, 2, 1, 2),
        (REWARD, 3, 2, 1),
        (PPO, 2, 2, 1),
        (PPO, 3, 2, 1),
    ],
    ids=lambda value: value.stage if isinstance(value, Training) else str(value),
)
def test_a_training_that_loses_a_process_goes_on_in_as_many_or_others(
    store: Store,
    work_uri: str,
    tmp_path: Path,
    given: dict[str, Any],
    unbroken: Callable[[Training], Course],
    training: Training,
    zero_stage: int,
    first: int,
    second: int,
) -> None:
    """It begins in `first` processes, is stopped, and goes on in `second`; of several, one is killed."""

    def begin(number: int) -> "subprocess.Popen[str]":
        asked = arguments(training, given, tmp_path, work_uri, zero_stage=zero_stage, processes=number)
        return start(training.stage, tmp_path, **asked)

    def saved() -> int:
        """The step of the newest state."""
        found = [uri for uri in store.sizes(work_uri) if uri.endswith("/state/LATEST")]
        return int(json.loads(store.read_bytes(found[0]))["step"]) if found else 0

    def lose_one(task: "subprocess.Popen[str]") -> None:
        """Kill the second process after a state, and wait for the next one of its name."""
        before = saved()
        when(task, lambda: saved() > before)
        lost = rank_of(task.pid, 1)
        assert lost
        os.kill(lost, signal.SIGKILL)
        when(task, lambda: rank_of(task.pid, 1) not in (lost, None))

    task = begin(first)
    if first > 1:
        lose_one(task)
    old = saved()
    when(task, lambda: saved() > old)
    task.terminate()
    said = task.communicate()[0]
    assert task.returncode == 10, said[-5000:]
    if first > 1:
        killed = rf"crashed at \d+/{training.num_steps} \w+: \w+[^:]*: process 1 was killed by SIGKILL"
        assert re.search(killed, said), said[-5000:]
        assert re.search(rf"/{training.num_steps} \w+ are there already, going on", said)
    stopped = re.search(r"error 10: .*stopped by SIGTERM; the state of step (\d+) is stored", said)
    assert stopped, said[-5000:]
    assert saved() == int(stopped[1]) < training.num_steps

    task = begin(second)
    if second > 1:
        lose_one(task)
    said = task.communicate()[0]
    assert task.returncode == 0, said[-5000:]
    assert re.search(rf"{stopped[1]}/{training.num_steps} \w+ are there already, going on", said)
    assert ("killed by SIGKILL" in said) is (second > 1)

    history, weights = made(store, tmp_path / training.output)
    expected_history, expected_weights = unbroken(training)
    assert len(history) == len(expected_history) >= training.num_steps
    for one, other in zip(history, expected_history, strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            if not name.endswith("seconds"):
                assert one[name] == pytest.approx(value, abs=1e-3), (name, one, other)
    for name, weight in expected_weights.items():
        torch.testing.assert_close(weights[name], weight, rtol=0, atol=2e-3)


def made(store: Store, artifact: Path) -> Course:
    """The course of a training, and its weights."""
    objects = Manifest.model_validate_json(artifact.read_text()).objects
    files = {item.uri.rpartition("/")[2]: item.uri for item in objects}
    history = store.read_bytes(files["history.jsonl"]).decode().splitlines()
    return [json.loads(line) for line in history], load(store.read_bytes(files["model.safetensors"]))


def trained(stage: str, base: Path, config: Config, folder: Path) -> Course:
    """The same of a training in this one process."""
    folder.mkdir()
    training = [row for row in rows() if not row.validation]
    run: SftRun | RewardRun
    if stage == "sft":
        pairs = [(row.prompt, row.text) for row in training if row.source == "teacher"]
        run = train_sft(base, pairs, config, folder, "sft", None, saving.no_saver())
    else:
        validation = [row for row in rows() if row.validation]
        run = train_reward(base, training, validation, config, folder, None, saving.no_saver())
    return run.history, load_file(run.folder / "model.safetensors")
