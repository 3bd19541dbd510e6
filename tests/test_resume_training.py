"""sft, reward, and ppo with a judge and as rloo, killed in every way, follow an unbroken run's curve.

Each broken run, at seeded moments: the trainer is killed and starts again in place; then the task is killed
with SIGKILL; the next one is stopped with SIGTERM; the one after that comes to the end. Real engines, a real
store.
"""

import json
import os
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from limbeck import processes, sampler  # noqa: F401 - vLLM and TRL are imported once, not by each task
from limbeck.manifest import Manifest
from limbeck.records import LabelledCompletion, Source
from limbeck.rows import write_rows
from limbeck.storage import Store
from limbeck.trainer import group_relative  # noqa: F401
from limbeck.trainer.networks import Scorer, load_tokenizer, save_checkpoint
from tests import tiny
from tests.forked_task import Task, finish, start
from tests.given import LETTERS, artifact, ppo_artifacts

pytestmark = pytest.mark.usefixtures("forked_engines")
PATIENCE_SECONDS = 600.0
OFTEN = {"deepspeed": {"checkpoint_seconds": 0.2}}
"""Of the broken runs; the unbroken ones end before they save a state."""
SETTINGS: dict[str, Any] = {
    "restart_seconds": 0.1,
    "teacher": {"dtype": "float32"},
    "student": {"dtype": "float32"},
    "task": {"answer_pattern": r"([a-w])"},
    "judge": {"template": "judge {prompt} : {completion} = {first} {second}"},
    "engine": {"max_model_len": 64, "kv_cache_mib": 64, "enforce_eager": True},
    "sft": {"learning_rate": 1e-3, "batch_size": 8, "num_epochs": 4},
    "reward": {
        "learning_rate": 1e-3,
        "batch_size": 16,
        "num_epochs": 4,
        "evaluate_every": 40,
        "min_auc": 0.0,
    },
    "ppo": {
        "num_updates": 40,
        "batch_size": 64,
        "max_tokens": 8,
        "learning_rate": 1e-3,
        "evaluate_every": 20,
        "critic_warmup_updates": 1,
        "adaptive_kl": True,
        "target_kl": 0.5,
    },
}


class Stage(NamedTuple):
    """A stage to break."""

    name: str
    output: str
    unit: str
    num_steps: int
    curves: dict[str, float]
    """What is compared at each step, and how much it may differ."""
    changed: dict[str, Any] = {}  # noqa: RUF012 - a tuple's default, never changed
    """Settings of the stage besides those of all."""
    reward: str = ""
    """Of ppo, if it is another one."""


STAGES = [
    Stage("sft", "checkpoint", "steps", 200, {"sft/loss": 1e-4, "sft/learning_rate": 1e-9}),
    Stage("reward", "reward_model", "updates", 200, {"reward/loss": 1e-4}),
    Stage(
        "ppo",
        "policy",
        "updates",
        40,
        {"ppo/score": 0.05, "ppo/learning_rate": 1e-9},
        {
            "algorithm": "rloo",
            "samples_per_prompt": 4,
            "adaptive_kl": False,
            "sampler": "transformers",
        },
    ),
    Stage(
        "ppo",
        "policy",
        "updates",
        40,
        {"ppo/score": 0.05, "ppo/unjudged": 1e-9, "ppo/kl_coef": 1e-3},
        {"sampler": "transformers"},  # of vLLM the judge's engine alone
        reward="judge",
    ),
]


def completions(source: Source) -> list[LabelledCompletion]:
    return [
        LabelledCompletion(
            completion_id=f"{n}{source}",
            prompt_id=f"{n:016x}",
            prompt=f"sum {LETTERS[n % 23]} {LETTERS[n // 23]}",
            source=source,
            text=f"= {LETTERS[(n + n // 23) % 23]}" if n % 2 else f"{LETTERS[n % 23]} =",
            pseudo_reward=float(n % 2),
            vote_share=1.0,
            selected=True,
            validation=n >= 400,
        )
        for n in range(440)
    ]


@pytest.fixture(scope="module")
def given(store: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Everything that the three components take."""
    folder, uri = tmp_path_factory.mktemp("given"), "s3://test/resume-training"
    student = tiny.checkpoint(folder / "model", seed=3)
    scorer = save_checkpoint(Scorer(student, "float32", None), load_tokenizer(student), folder / "scorer")

    def rows(name: str, kind: str, content: Any) -> dict[str, str]:
        return artifact(store, folder, f"{uri}/{name}", kind, [write_rows(store, f"{uri}/{name}", content)])

    for_ppo = ppo_artifacts(store, folder, uri, student, scorer)
    labelled = rows("teacher_labelled", "labelled", completions("teacher"))
    return {
        "sft": {"labelled": labelled, "model": str(student), "selection": "all"},
        "reward": {
            "teacher_labelled": labelled,
            "student_labelled": rows("student_labelled", "labelled", completions("student")),
            "checkpoint": for_ppo["checkpoint"],
            "teacher": "",
        },
        "ppo": {
            **for_ppo,
            "reward": "agreement",
            "teacher": str(tiny.checkpoint(folder / "teacher", seed=5)),
        },
    }


def when(process: Task, ready: Callable[[], bool]) -> None:
    """Wait for a moment of a process's work."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not ready():
        assert process.poll() is None, process.communicate()[0][-5000:]
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.1)


def trainer_of(task: int) -> int:
    """The process in which a task's stage works."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        same = processes.command_line(int(stat.parent.name)) == processes.command_line(task)
        if same and stat.read_text().rpartition(")")[2].split()[1] == str(task):
            return int(stat.parent.name)
    raise AssertionError("no child")


@pytest.mark.parametrize("stage", STAGES, ids=["sft", "reward", "ppo, rloo", "ppo, judge"])
def test_a_training_broken_in_every_way_follows_the_curve_of_an_unbroken_one(
    store: Store, work_uri: str, tmp_path: Path, given: dict[str, Any], stage: Stage
) -> None:
    def arguments(side: str) -> dict[str, Any]:
        outputs = {name: {"path": str(tmp_path / side / name)} for name in (stage.output, "metrics")}
        if stage.name == "sft":
            del outputs["metrics"]
        saving = OFTEN if side == "broken" else {}
        settings = SETTINGS | {stage.name: SETTINGS[stage.name] | stage.changed | saving}
        kind = {"reward": stage.reward} if stage.reward else {}
        return {**given[stage.name], **kind, **outputs, "work_uri": f"{work_uri}/{side}", "config": settings}

    def saved() -> int:
        """The step of the newest state."""
        found = [uri for uri in store.sizes(f"{work_uri}/broken") if uri.endswith("/state/LATEST")]
        return int(json.loads(store.read_bytes(found[0]))["step"]) if found else 0

    def history(side: str) -> list[dict[str, float]]:
        made = Manifest.model_validate_json((tmp_path / side / stage.output).read_text())
        (item,) = [item for item in made.objects if item.uri.endswith("/history.jsonl")]
        return [json.loads(line) for line in store.read_bytes(item.uri).decode().splitlines()]

    moments = sorted(random.Random(stage.name).sample(range(1, stage.num_steps // 2), 3))  # noqa: S311
    folder = tmp_path / "broken"

    first = start(stage.name, folder, **arguments("broken"))
    when(first, lambda: saved() >= moments[0])
    trainer = trainer_of(first.pid)
    os.kill(trainer, signal.SIGKILL)
    old = saved()
    when(first, lambda: saved() >= max(moments[1], old + 1))
    first.kill()
    said = first.communicate()[0]
    assert re.search(rf"crashed at \d+/{stage.num_steps} {stage.unit}: killed by SIGKILL", said), said[-5000:]
    goes_on = rf"(\d+)/{stage.num_steps} {stage.unit} are there already, going on"
    assert re.search(goes_on, said)

    left = saved()
    second = start(stage.name, folder, **arguments("broken"))
    when(second, lambda: saved() >= max(moments[2], left + 1))
    second.terminate()
    said = second.communicate()[0]
    assert second.returncode == 10, said[-5000:]
    assert re.search(goes_on, said)
    stopped = re.search(r"error 10: .*stopped by SIGTERM; the state of step (\d+) is stored", said)
    assert stopped, said[-5000:]
    assert said.count("limbeck: error") == 1
    assert saved() == int(stopped[1]) < stage.num_steps
    assert not (folder / stage.output).exists()

    said = finish(stage.name, folder, **arguments("broken"))
    resumed = re.search(goes_on, said)
    assert resumed
    assert resumed[1] == stopped[1]
    finish(stage.name, tmp_path / "unbroken", **arguments("unbroken"))
    broken, unbroken = history("broken"), history("unbroken")
    assert len(broken) == len(unbroken) >= stage.num_steps
    for one, other in zip(broken, unbroken, strict=True):
        for name, tolerance in stage.curves.items():
            assert one.get(name) == pytest.approx(other.get(name), abs=tolerance), (one, other)
    kept = {
        uri.partition("/state/")[2].split("/")[0]
        for uri in store.sizes(f"{work_uri}/broken")
        if "/state/" in uri
    }
    assert len(kept - {"LATEST"}) <= 2
