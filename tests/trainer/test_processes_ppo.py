"""PPO in several processes: the result of one, and states that any number of them goes on from."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from limbeck.config import OpenAIConfig, parse_config
from limbeck.errors import ConfigError
from limbeck.nodes import Node
from limbeck.rollout_judge import Judging, opened
from limbeck.sampler import VllmSampler
from limbeck.tasks.policy_ranks import share_of, train_policy
from tests import saving, tiny
from tests.engines import open_process
from tests.torchrun import in_processes
from tests.trainer.ppo_process import (
    NUM_UPDATES,
    NUM_VALIDATION,
    PROMPTS,
    SAVED,
    Case,
    config,
    run,
    told,
)

UNBROKEN = [Case(f"zero-{stage}", stage, "", dies=False) for stage in (1, 2, 3)]
KILLED = Case("killed", 3, "", dies=True)
TAKEN = ("seconds", "learning_rate")
"""What a metric's name ends with that is not compared."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ppo")


@pytest.fixture(scope="module")
def alone(folder: Path, engine: VllmSampler, student: Path, loving_folder: Path) -> Path:
    """The run of one process, and its states."""
    engine.load_weights(student)
    (folder / "alone").mkdir()
    with saving.keeping(folder) as (saver, _):
        made = run(Case("alone", 2, "", dies=False), student, loving_folder, engine, folder / "alone", saver)
    (folder / "alone" / "history.json").write_text(json.dumps(made.course.history))
    return folder / "alone"


@pytest.fixture(scope="module")
def together(folder: Path, alone: Path, student: Path, loving_folder: Path) -> Path:
    """Two processes, in one launch: unbroken runs, one that goes on, and one of which a process is killed."""
    cases = [*UNBROKEN, Case("two-from-one", 3, str(folder / str(SAVED)), dies=False), KILLED]
    given = (str(student), str(loving_folder), str(folder))
    with pytest.raises(AssertionError, match=r"Signal 9 \(SIGKILL\) received by PID"):
        in_processes(2, "tests.trainer.ppo_process", *given, *map(told, cases))
    return folder


@pytest.mark.parametrize("name", ["zero-1", "zero-2", "zero-3", "two-from-one"])
def test_two_processes_give_what_one_gives_also_where_they_go_on_from_its_state(
    alone: Path, together: Path, student: Path, name: str
) -> None:
    same(alone, together / name, student)


def test_one_process_goes_on_from_the_state_of_two_of_which_one_was_killed(
    alone: Path, together: Path, engine: VllmSampler, student: Path, loving_folder: Path
) -> None:
    own = together / "one-from-two"
    own.mkdir()
    engine.load_weights(student)
    (state,) = (together / "killed" / "outbox").iterdir()
    assert state.name == f"{SAVED:08d}"
    case = Case("one-from-two", 2, str(state), dies=False)
    made = run(case, student, loving_folder, engine, own, saving.no_saver())
    (own / "history.json").write_text(json.dumps(made.course.history))
    same(alone, own, student)


def test_their_state_has_the_moments_of_one_process_so_the_gradients_were_the_same(
    alone: Path, together: Path
) -> None:
    """AdamW does not tell gradients from their halves."""
    one = tensors_of(alone.parent / str(SAVED))
    two = tensors_of(together / "killed" / "outbox" / f"{SAVED:08d}")
    assert one.keys() == two.keys()
    for name, value in one.items():
        near = 1e-3 * float(value.abs().max())
        torch.testing.assert_close(two[name], value, atol=near, rtol=0.0, msg=name)


def tensors_of(state: Path) -> dict[str, torch.Tensor]:
    """All tensors of a state, by engine and name."""
    return {
        f"{engine}/{name}": value
        for engine in ("policy", "critic")
        for file in (state / engine).glob("*.safetensors")
        for name, value in load_file(file).items()
    }


def test_two_processes_of_a_node_go_on_from_it_too_and_each_asks_a_judge_of_its_own(
    together: Path, engine: VllmSampler, student: Path, loving_folder: Path
) -> None:
    """As the stage starts them. The reward is another one now, so what to compare with is made here."""
    teacher = tiny.checkpoint(together / "teacher", seed=5)
    (state,) = (together / "killed" / "outbox").iterdir()
    one, two = together / "judged-by-one", together / "judged-by-two"
    questions = {prompt.prompt_id: prompt.message for prompt in PROMPTS}
    judging, settings = Judging(lambda: open_process(teacher), questions, ()), config(3)
    for own in (one, two):
        own.mkdir()
    engine.load_weights(student)
    with opened(judging, settings) as judge:
        case = Case("", 3, str(state), dies=False)
        expected = run(case, student, loving_folder, engine, one, saving.no_saver(), judge)
    with saving.no_saver() as saver:
        found = train_policy(
            Node(),
            2,
            str(teacher),
            student=student,
            reward_folder=loving_folder,
            prompts=PROMPTS,
            validation=PROMPTS[:NUM_VALIDATION],
            reward="judge",
            judging=judging,
            config=settings,
            folder=two,
            resume_from=state,
            saver=saver,
        )
    assert all("ppo/judge_tokens" in entry for entry in found.course.history[SAVED + 1 :])
    for own, made in ((one, expected), (two, found)):
        (own / "history.json").write_text(json.dumps(made.course.history))
    same(one, two, student)


def test_an_engine_knows_nothing_of_the_process_group_and_sees_the_gpu_of_its_process_alone(
    together: Path,
) -> None:
    for rank in (0, 1):
        seen = dict(
            item.split("=", 1)
            for item in json.loads((together / f"environment-{rank}.json").read_text())
            if "=" in item
        )
        assert seen["CUDA_VISIBLE_DEVICES"] == str(rank)
        assert not [name for name in seen if name.startswith(("RANK", "WORLD", "LOCAL", "MASTER", "TORCHEL"))]


SETTINGS: dict[str, dict[str, Any]] = {
    "Set ppo.deepspeed.processes: 1": {"ppo": {"algorithm": "rloo", "samples_per_prompt": 2}},
    "Set it to 1, or ppo.deepspeed.processes to 1": {"engine": {"tensor_parallel_size": 2}},
}


@pytest.mark.parametrize(("remedy", "settings"), SETTINGS.items(), ids=SETTINGS)
def test_what_is_not_for_several_processes_is_refused_before_they_start(
    tmp_path: Path, remedy: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=remedy):
        train_policy(
            Node(),
            2,
            "",
            student=tmp_path,
            reward_folder=tmp_path,
            prompts=PROMPTS,
            validation=PROMPTS,
            reward="model",
            judging=None,
            config=parse_config(settings),
            folder=tmp_path,
            resume_from=None,
            saver=saving.no_saver(),
        )


def test_processes_that_ask_a_server_keep_its_limits_together() -> None:
    limits = OpenAIConfig(max_concurrent=16, requests_per_minute=60)
    of_one = share_of(limits, 4)
    assert (of_one.max_concurrent, of_one.requests_per_minute, of_one.tokens_per_minute) == (4, 15, None)
    assert share_of(limits, 32).max_concurrent == 1


def same(one: Path, other: Path, student: Path) -> None:
    """Two runs went alike, and ended with the same policy, and chose the same one."""
    histories = [json.loads((folder / "history.json").read_text()) for folder in (one, other)]
    assert [entry["update"] for entry in histories[1]] == list(range(NUM_UPDATES + 1))
    for expected, found in zip(*histories, strict=True):
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            if not name.endswith(TAKEN):
                assert found[name] == pytest.approx(value, abs=1e-4, nan_ok=True), (name, expected["update"])
    assert any(entry.get("ppo/clipfrac", math.nan) > 0 for entry in histories[0])
    start = load_file(student / "model.safetensors")
    for part in ("weights", "best"):
        expected, found = (load_file(folder / part / "model.safetensors") for folder in (one, other))
        learnt = max(float((expected[key] - start[key]).abs().max()) for key in expected)
        assert learnt > 1e-3 or part == "best"
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, atol=0.01 * learnt, rtol=0.0, msg=f"{part} {key}")
