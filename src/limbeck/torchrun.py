"""A training in several processes: torchrun starts them on each node, and this process looks after them.

It takes their states to the store and SIGTERM to them; they know no store. One process on one node needs none
of it: the training is called where the stage works.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import numpy as np

from limbeck import processes
from limbeck.config import Config
from limbeck.errors import EngineError, LimbeckError
from limbeck.jobs import (
    BEGUN,
    ERRORS,
    FAILED,
    JOB,
    OUTBOX,
    OUTCOME,
    PIDS,
    PLACE,
    ROWS,
    Error,
    Failed,
    Job,
    Outcome,
    RewardRun,
    SftRun,
)
from limbeck.nodes import Node
from limbeck.progress import mark
from limbeck.records import LabelledCompletion
from limbeck.saver import Saver

WORKER = "limbeck.trainer.worker"
POLL_SECONDS = 0.2
PATIENCE_SECONDS = 5.0
"""What torchrun gets to end its processes when this one has failed."""
NOT_THEIRS = ("PET_", "AWS_")
"""Variables that the processes do not get: what is told to them by arguments, and the key of the store."""
THEIRS = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore::FutureWarning"}
"""What they get where nothing else is set: one thread each, and no warning of each of DeepSpeed's calls."""
LAST_LINES = 3
"""Of a failed rank's log, in the error that is raised."""


def train_sft(
    node: Node,
    num_processes: int,
    base: Path,
    pairs: Sequence[tuple[str, str]],
    config: Config,
    folder: Path,
    name: str,
    resume_from: Path | None,
    saver: Saver,
) -> SftRun:
    """`limbeck.trainer.sft.train_sft` in several processes.

    Raises:
        EngineError: when a process fails, with its last lines.
        StoppedError: after SIGTERM, when the state is stored.
    """
    (folder / ROWS).write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs), encoding="utf-8")
    settings = config.sft.deepspeed
    job = Job(
        training="sft",
        name=name,
        config=config,
        base=base,
        folder=folder,
        resume_from=resume_from,
        checkpoint_seconds=settings.checkpoint_seconds,
    )
    outcome = run(job, node, num_processes, saver)
    return SftRun(outcome.folder or folder, outcome.history)


def train_reward(
    node: Node,
    num_processes: int,
    base: Path,
    training: Sequence[LabelledCompletion],
    validation: Sequence[LabelledCompletion],
    config: Config,
    folder: Path,
    resume_from: Path | None,
    saver: Saver,
) -> RewardRun:
    """`limbeck.trainer.reward.train_reward` in several processes; it raises what `train_sft` does."""
    rows = "".join(f"{row.model_dump_json()}\n" for row in [*training, *validation])
    (folder / ROWS).write_text(rows, encoding="utf-8")
    settings = config.reward.deepspeed
    job = Job(
        training="reward",
        name="reward",
        config=config,
        base=base,
        folder=folder,
        resume_from=resume_from,
        checkpoint_seconds=settings.checkpoint_seconds,
    )
    outcome = run(job, node, num_processes, saver)
    return RewardRun(outcome.folder or folder, np.array(outcome.scores), outcome.history)


def run(job: Job, node: Node, num_processes: int, saver: Saver, worker: str = WORKER) -> Outcome:
    """Have a job done by this node's processes together with those of the other nodes.

    Args:
        job: Its folder holds the rows.
        node: Where this is.
        num_processes: On each node.
        saver: Takes the states of the first node; already entered.
        worker: The module that does it.

    Raises:
        LimbeckError: what a process has raised, of the same exit code.
        EngineError: when a process failed in another way, with its last lines.
        StoppedError: after SIGTERM, when the state is stored.
    """
    (job.folder / JOB).write_text(job.model_dump_json(), encoding="utf-8")
    for name in (PIDS, OUTBOX, ERRORS):
        (job.folder / name).mkdir()
    with _started(job.folder, node, num_processes, worker) as agent:
        _look_after(agent, job.folder, saver)
    left = sorted((job.folder / OUTBOX).iterdir())
    if (job.folder / OUTCOME).exists() and agent.returncode == 0:
        outcome = Outcome.model_validate_json((job.folder / OUTCOME).read_text())
        if not outcome.stopped:
            return outcome
        for state in left:
            saver.take(int(state.name), state)
        saver.stop()
    for state in left:  # whole, and what the next attempt goes on from
        saver.take(int(state.name), state)
    raise _failure(job, agent.returncode)


@contextmanager
def _started(folder: Path, node: Node, num_processes: int, worker: str) -> Iterator["subprocess.Popen[str]"]:
    """Start torchrun; however the block ends, none of its processes is left."""
    meeting = (
        ["--standalone"]
        if node.count == 1
        else ["--node-rank", str(node.rank), "--master-addr", node.address, "--master-port", str(node.port)]
    )
    mine = {name: value for name, value in os.environ.items() if not name.startswith(NOT_THEIRS)}
    agent = subprocess.Popen(
        [
            *(sys.executable, "-m", "limbeck.trainer.agent", str(folder)),
            *("--nnodes", str(node.count), "--nproc-per-node", str(num_processes), *meeting),
            *("--redirects", "3", "--log-dir", str(folder / "logs")),
            *("-m", worker, str(folder / JOB)),
        ],
        env=THEIRS | mine,
        text=True,
        start_new_session=True,
        preexec_fn=processes.dies_with_parent(signal.SIGKILL),  # noqa: PLW1509 - one call, of what is loaded
    )
    try:
        yield agent
    finally:
        processes.stop(agent, PATIENCE_SECONDS)


def _look_after(agent: "subprocess.Popen[str]", folder: Path, saver: Saver) -> None:
    """Until torchrun ends: show what its first process says, take its states, and pass SIGTERM on."""
    begun = told = False
    with _relayed(folder) as relay:
        while agent.poll() is None:
            time.sleep(POLL_SECONDS)
            relay()
            with suppress(FileNotFoundError):
                mark((folder / PLACE).read_text())
            if not begun and (folder / BEGUN).exists():
                begun = True
                saver.begin(int((folder / BEGUN).read_text()))
            if saver.asked and not told:
                told = True
                for file in (folder / PIDS).iterdir():
                    with suppress(ProcessLookupError):
                        os.kill(int(file.read_text()), signal.SIGTERM)
            if begun and not saver.asked and saver.idle():
                _take(folder, saver)


def _take(folder: Path, saver: Saver) -> None:
    """Give the newest state to the saver, unless the ranks have just given it up for a newer one."""
    for state in sorted((folder / OUTBOX).iterdir())[-1:]:
        taken = folder / f"taken-{state.name}"
        with suppress(FileNotFoundError):
            state.rename(taken)
            saver.take(int(state.name), taken)


@contextmanager
def _relayed(folder: Path) -> "Iterator[_Relay]":
    """What the first rank of this node says, on this process's own streams."""
    relay = _Relay(folder / "logs")
    try:
        yield relay
    finally:
        relay()


class _Relay:
    """Copies whole lines of a rank's logs."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._read = {"stdout": 0, "stderr": 0}

    def __call__(self) -> None:
        """Copy what is new."""
        streams: dict[str, TextIO] = {"stdout": sys.stdout, "stderr": sys.stderr}
        for name, stream in streams.items():
            for log in self._logs.glob(f"*/attempt_0/0/{name}.log"):
                with log.open("rb") as file:
                    file.seek(self._read[name])
                    lines = file.read().rpartition(b"\n")
                if lines[1]:
                    self._read[name] += len(lines[0]) + 1
                    stream.write(lines[0].decode(errors="replace") + "\n")
                    stream.flush()


def _failure(job: Job, exit_code: int) -> LimbeckError:
    """What went wrong, by the rank that failed first."""
    remedy = "The log says more. Run it again: it goes on with what is stored"
    if not (job.folder / FAILED).exists():
        return EngineError(f"{job.name}: torchrun ended", got=f"exit code {exit_code}", remedy=remedy)
    failed = Failed.model_validate_json((job.folder / FAILED).read_text())
    said = job.folder / ERRORS / f"{failed.rank}.json"
    if said.exists():
        told = Error.model_validate_json(said.read_text())
        error = (
            EngineError(told.message)
            if told.exit_code == EngineError.exit_code
            else LimbeckError(told.message)
        )
        error.exit_code = told.exit_code
        return error
    code = failed.exit_code
    killed = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    ended = f"was killed by {killed}" if code < 0 else f"ended with exit code {code}"
    log = Path(failed.log)
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    last = " | ".join([line.strip() for line in lines if line.strip()][-LAST_LINES:])
    return EngineError(
        f"{job.name}: process {failed.rank} {ended}", got=last or "no last words", remedy=remedy
    )
