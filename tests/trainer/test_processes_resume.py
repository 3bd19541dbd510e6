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
    """A stage, and in how many processes its attempts train."""

    stage: str
    output: str
    settings: dict[str, Any]
    zero_stage: int
    first: int
    """Loses a process where it has several, and is stopped by SIGTERM."""
    second: int
    num_steps: int = NUM_STEPS


TRAININGS = [
    Training("sft", "checkpoint", {"max_steps": NUM_STEPS}, 3, 2, 1),
    Training(
        "reward",
        "reward_model",
        {"num_epochs": (NUM_STEPS - 0.5) * 4 / 23, "evaluate_every": NUM_STEPS, "min_auc": 0.0},
        2,
        1,
        2,
    ),
    Training(
        "ppo",
        "policy",
        {
            "num_updates": NUM_UPDATES,
            "batch_size": 16,
            "max_tokens": 6,
            "evaluate_every": NUM_UPDATES,
            "critic_warmup_updates": 1,
            "adaptive_kl": True,
        },
        2,
        2,
        1,
        NUM_UPDATES,
    ),
]


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


@pytest.mark.parametrize("training", TRAININGS, ids=lambda training: training.stage)
def test_a_training_that_loses_a_process_goes_on_in_as_many_or_others(
    store: Store, work_uri: str, tmp_path: Path, given: dict[str, Any], training: Training
) -> None:
    def arguments(side: str, number: int) -> dict[str, Any]:
        outputs = {name: {"path": str(tmp_path / side / name)} for name in (training.output, "metrics")}
        if training.stage == "sft":
            del outputs["metrics"]
        deepspeed = DEEPSPEED | {"zero_stage": training.zero_stage, "processes": number}
        section = {"learning_rate": 1e-3, "batch_size": 8, **training.settings, "deepspeed": deepspeed}
        config = SETTINGS | {training.stage: section}
        return {**given[training.stage], **outputs, "work_uri": f"{work_uri}/{side}", "config": config}

    def saved() -> int:
        """The step of the newest state."""
        found = [uri for uri in store.sizes(f"{work_uri}/broken") if uri.endswith("/state/LATEST")]
        return int(json.loads(store.read_bytes(found[0]))["step"]) if found else 0

    def lose_one(task: "subprocess.Popen[str]") -> None:
        """Kill the second process after a state, and wait for the next one of its name."""
        before = saved()
        when(task, lambda: saved() > before)
        lost = rank_of(task.pid, 1)
        assert lost
        os.kill(lost, signal.SIGKILL)
        when(task, lambda: rank_of(task.pid, 1) not in (lost, None))

    folder = tmp_path / "broken"
    first = start(training.stage, folder, **arguments("broken", training.first))
    if training.first > 1:
        lose_one(first)
    old = saved()
    when(first, lambda: saved() > old)
    first.terminate()
    said = first.communicate()[0]
    assert first.returncode == 10, said[-5000:]
    if training.first > 1:
        killed = rf"crashed at \d+/{training.num_steps} \w+: \w+[^:]*: process 1 was killed by SIGKILL"
        assert re.search(killed, said), said[-5000:]
        assert re.search(rf"/{training.num_steps} \w+ are there already, going on", said)
    stopped = re.search(r"error 10: .*stopped by SIGTERM; the state of step (\d+) is stored", said)
    assert stopped, said[-5000:]
    assert saved() == int(stopped[1]) < training.num_steps

    second = start(training.stage, folder, **arguments("broken", training.second))
    if training.second > 1:
        lose_one(second)
    said = second.communicate()[0]
    assert second.returncode == 0, said[-5000:]
    assert re.search(rf"{stopped[1]}/{training.num_steps} \w+ are there already, going on", said)
    assert ("killed by SIGKILL" in said) is (training.second > 1)

    broken, weights = made(store, tmp_path / "broken" / training.output)
    if training.stage == "ppo":
        finish("ppo", tmp_path / "unbroken", **arguments("unbroken", 1))
        unbroken, expected = made(store, tmp_path / "unbroken" / training.output)
    else:
        config = parse_config(arguments("unbroken", 1)["config"])
        unbroken, expected = trained(
            training.stage, Path(given["sft"]["model"]), config, tmp_path / "unbroken"
        )
    assert len(broken) == len(unbroken) >= training.num_steps
    for one, other in zip(broken, unbroken, strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            if not name.endswith("seconds"):
                assert one[name] == pytest.approx(value, abs=1e-3), (name, one, other)
    for name, weight in expected.items():
        torch.testing.assert_close(weights[name], weight, rtol=0, atol=2e-3)


def made(store: Store, artifact: Path) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """The course of a training, and its weights."""
    objects = Manifest.model_validate_json(artifact.read_text()).objects
    files = {item.uri.rpartition("/")[2]: item.uri for item in objects}
    history = store.read_bytes(files["history.jsonl"]).decode().splitlines()
    return [json.loads(line) for line in history], load(store.read_bytes(files["model.safetensors"]))


def trained(
    stage: str, base: Path, config: Config, folder: Path
) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """The same of an unbroken training in this one process."""
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
