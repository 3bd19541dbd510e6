"""Real vLLM in a process of its own: killed, stopped and left alone in mid-generation."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from limbeck.engine_process import IN_FLIGHT, EngineProcess
from limbeck.errors import ConfigError, EngineError
from limbeck.sampling import Sample, SampleRequest
from limbeck.warm import ADDRESS, OFF
from tests import tiny
from tests.engines import open_process, open_sampler

pytestmark = pytest.mark.usefixtures("forked_engines")
PATIENCE_SECONDS = 300.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", width=256)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[EngineProcess]:
    """One process for all tests that leave it alive."""
    process = open_process(folder, max_num_seqs=16, stall_seconds=5)
    yield process
    process.close()


def asked(engine: EngineProcess, count: int) -> Iterator[tuple[int, SampleRequest]]:
    for number in range(count):
        ids = engine.chat_prompt(f"sum {'abcdefghij'[number % 10]} b")
        yield number, SampleRequest(ids, 1.0, 8 + number % 30, seed=number)


def signal_after(count: int, pid: int, number: signal.Signals, stream: Iterator[tuple[int, Sample]]) -> None:
    """Take all answers, and send a process a signal after some of them."""
    for done, _ in enumerate(stream, 1):
        if done == count:
            os.kill(pid, number)


def test_it_answers_as_requests_finish_what_the_engine_in_this_process_answers(
    engine: EngineProcess, folder: Path
) -> None:
    most = taken = 0
    found: dict[int, Sample] = {}

    def counted() -> Iterator[tuple[int, SampleRequest]]:
        nonlocal most, taken
        for item in asked(engine, 200):
            taken += 1
            most = max(most, taken - len(found))
            yield item

    for number, sample in engine.stream(counted()):
        found[number] = sample
    assert list(found) != sorted(found), "a short answer overtakes a long one"
    assert most == IN_FLIGHT * 16
    here = open_sampler(folder)
    expected = here.sample([request for _, request in asked(engine, 200)])
    here.close()
    assert [found[number].token_ids for number in range(200)] == [sample.token_ids for sample in expected]


def test_a_wrong_verdict_is_the_settings_fault_and_not_the_engines(engine: EngineProcess) -> None:
    same = SampleRequest([1], 0.0, 1, verdict=("yes", "yes"))
    with pytest.raises(ConfigError, match=r"begin with the same token in judge\.yes, judge\.no"):
        list(engine.stream([(0, same)]))
    engine.restart()


def test_what_it_ended_with_is_the_reason_also_where_the_next_request_cannot_be_sent(
    engine: EngineProcess,
) -> None:
    same = SampleRequest([1], 0.0, 1, verdict=("yes", "yes"))

    def one_more_after_its_end() -> Iterator[tuple[int, SampleRequest]]:
        yield 0, same
        wait_for_the_end(engine.pid)
        yield 1, SampleRequest([1], 0.0, 1)

    with pytest.raises(ConfigError, match=r"begin with the same token in judge\.yes, judge\.no"):
        list(engine.stream(one_more_after_its_end()))
    engine.restart()


def test_requests_that_are_long_in_coming_are_no_stall(engine: EngineProcess) -> None:
    def slow() -> Iterator[tuple[int, SampleRequest]]:
        time.sleep(6)  # more than its stall_seconds
        yield from asked(engine, 1)

    assert len(list(engine.stream(slow()))) == 1


def test_an_engine_that_stalls_is_killed_and_starts_again(engine: EngineProcess) -> None:
    pid = engine.pid
    with pytest.raises(EngineError, match=r"stalled: got no token for 5 s \(engine\.stall_seconds\)"):
        signal_after(20, pid, signal.SIGSTOP, engine.stream(asked(engine, 500)))
    assert not Path(f"/proc/{pid}").exists()
    engine.restart()
    assert len(list(engine.stream(asked(engine, 20)))) == 20


ORPHAN = """
import sys, time
from pathlib import Path
from tests.engines import open_process
engine = open_process(Path(sys.argv[1]))
print(engine.pid, flush=True)
time.sleep(600)
"""


def test_it_does_not_outlive_the_process_that_started_it(folder: Path) -> None:
    stage = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, str(folder)],
        cwd=Path(__file__).parents[1],
        env=os.environ | {ADDRESS: OFF},  # it starts by itself, as in a pod
        stdout=subprocess.PIPE,
        text=True,
    )
    assert stage.stdout is not None
    pid = int(stage.stdout.readline())
    assert Path(f"/proc/{pid}").exists()
    stage.kill()
    stage.communicate()
    wait_for_the_end(pid)


def wait_for_the_end(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while _alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    """Whether a process runs, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_when_vllms_own_process_dies_the_engine_is_dead_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On GPUs vLLM has one of its own, whose death alone would leave vLLM waiting for ever."""
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    engine = open_process(folder, max_num_seqs=16)
    (core,) = [pid for pid in _below(engine.pid) if "EngineCore" in _name(pid)]
    with pytest.raises(EngineError, match="the engine's process ended"):
        signal_after(20, core, signal.SIGKILL, engine.stream(asked(engine, 2000)))
    engine.close()


def test_when_vllms_own_process_hangs_the_engine_has_stalled_and_nothing_of_it_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that hangs does not end by itself, and holds the GPU's memory."""
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    engine = open_process(folder, max_num_seqs=16, stall_seconds=5)
    (core,) = [pid for pid in _below(engine.pid) if "EngineCore" in _name(pid)]
    with pytest.raises(EngineError, match="stalled"):
        signal_after(20, core, signal.SIGSTOP, engine.stream(asked(engine, 2000)))
    try:
        wait_for_the_end(core)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(core, signal.SIGKILL)


def _below(pid: int) -> list[int]:
    """All processes below one."""
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (thread / "children").read_text().split()):
            found += [child, *_below(child)]
    return found


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()
