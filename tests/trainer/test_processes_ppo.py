"""PPO in several processes: the result of one, and states that any number of them goes on from."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from limbeck.sampler import VllmSampler
from tests import saving
from tests.torchrun import in_processes
from tests.trainer.ppo_process import NUM_UPDATES, SAVED, Case, run, told

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
    """Two processes: unbroken runs, one that is killed, and in a second launch those that go on."""
    given = (str(student), str(loving_folder), str(folder))
    with pytest.raises(AssertionError, match=r"Signal 9 \(SIGKILL\) received by PID"):
        in_processes(2, "tests.trainer.ppo_process", *given, *map(told, [*UNBROKEN, KILLED]))
    resumed = [
        Case("two-from-two", 2, str(folder / "killed" / "outbox" / f"{SAVED:08d}"), dies=False),
        Case("two-from-one", 3, str(folder / str(SAVED)), dies=False),
    ]
    in_processes(2, "tests.trainer.ppo_process", *given, *map(told, resumed))
    return folder


@pytest.mark.parametrize("name", ["zero-1", "zero-2", "zero-3", "two-from-two", "two-from-one"])
def test_two_processes_give_what_one_gives_also_where_they_go_on_from_a_state(
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
    assert not (together / "killed" / "history.json").exists()
    case = Case("one-from-two", 2, str(state), dies=False)
    made = run(case, student, loving_folder, engine, own, saving.no_saver())
    (own / "history.json").write_text(json.dumps(made.course.history))
    same(alone, own, student)


def same(one: Path, other: Path, student: Path) -> None:
    """Two runs went alike, and ended with the same policy, and chose the same one."""
    histories = [json.loads((folder / "history.json").read_text()) for folder in (one, other)]
    assert [entry["update"] for entry in histories[1]] == list(range(NUM_UPDATES + 1))
    for expected, found in zip(*histories, strict=True):
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            if not name.endswith(TAKEN):
                assert found[name] == pytest.approx(value, abs=2e-3, nan_ok=True), (name, expected["update"])
    assert any(entry.get("ppo/clipfrac", math.nan) > 0 for entry in histories[0])
    start = load_file(student / "model.safetensors")
    for part in ("weights", "best"):
        expected, found = (load_file(folder / part / "model.safetensors") for folder in (one, other))
        learnt = max(float((expected[key] - start[key]).abs().max()) for key in expected)
        assert learnt > 1e-3 or part == "best"
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, atol=0.05 * learnt, rtol=0.0, msg=f"{part} {key}")
