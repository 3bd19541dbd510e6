"""One of several processes that train a small network, save it, and go on from what others saved.

python -m tests.trainer.states_process FOLDER     run by tests/trainer/test_states.py, alone and by torchrun
"""

import json
import os
import signal
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from limbeck.config import DeepSpeedConfig, Dtype
from limbeck.errors import ConfigError, EngineError, StoppedError
from limbeck.jobs import OUTBOX, PIDS
from limbeck.trainer import ranks
from limbeck.trainer.engines import device, start_process, wrap
from limbeck.trainer.rank_saver import RankSaver
from limbeck.trainer.states import load_engine, save_engine
from limbeck.trainer.worker import end

STEPS, SAVED = 6, 3
BATCH = 4


class Case(NamedTuple):
    """How a network is held."""

    zero_stage: Literal[0, 1, 2, 3]
    dtype: Dtype

    @property
    def name(self) -> str:
        """Of its files."""
        return f"zero-{self.zero_stage}-{self.dtype}"


STAGES: tuple[Literal[0, 1, 2, 3], ...] = (0, 1, 2, 3)
DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16")
CASES = [Case(stage, dtype) for stage, dtype in product(STAGES, DTYPES)]


def network(case: Case) -> nn.Module:
    """Odd sizes, so that no split of the weights is even; and one layer that does not learn."""
    torch.manual_seed(1)
    layers = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3), nn.Linear(3, 1, bias=False))
    layers[2].requires_grad_(False)
    return layers.to(getattr(torch, case.dtype))


def train(case: Case, folder: Path, *, resume: Path | None = None) -> list[float]:
    """The losses of the updates from the state on; a state is saved in the middle of an unbroken training."""
    config = DeepSpeedConfig(zero_stage=case.zero_stage)
    rows, count = ranks.passes(BATCH, 1, "sft")
    engine = wrap(network(case), config, case.dtype, learning_rate=1e-2, micro_batch=rows, accumulation=count)
    data = torch.randn((BATCH, 5), generator=torch.Generator().manual_seed(2))
    if resume:
        load_engine(engine, resume)
    losses = []
    for step in range(SAVED if resume else 0, STEPS):
        if step == SAVED and not resume:
            save_engine(engine, folder / case.name)
        losses.append(update(engine, ranks.share(list(data)), case))
    return losses


def update(engine: Any, rows: Sequence[torch.Tensor], case: Case) -> float:
    """One update; its loss over the rows of all processes."""
    losses = []
    for row in rows:
        given = row.to(device(), getattr(torch, case.dtype)).unsqueeze(0)
        loss = (engine(given).float() - row.sum()).square().mean()
        engine.backward(loss)
        engine.step()
        losses.append(float(loss.detach()))
    return ranks.mean_of(sum(losses) / len(losses))


def saves(folder: Path) -> list[Any]:
    """How two processes save together: time is over for the first one alone, SIGTERM comes to the other."""
    job = folder / "job"
    told: list[Any] = []

    def lies(step: int) -> bool:
        ranks.barrier()
        return (job / OUTBOX / f"{step:08d}").is_dir()

    for name in (PIDS, OUTBOX):
        if ranks.leads():
            (job / name).mkdir(parents=True, exist_ok=True)
        ranks.barrier()

    def save(step: int) -> None:
        state = folder / f"state-{step}"
        state.mkdir(exist_ok=True)
        ranks.barrier()
        saver.save(step, state)

    with RankSaver("sft", 3600.0 * ranks.rank(), job) as saver:  # the first one's time is always over
        try:
            saver.begin(ranks.rank())
        except EngineError as error:
            told.append(str(error))
        saver.begin(0)
        told.append(saver.due())
        save(1)
        told.append(lies(1))
        told += [saver.due(), lies(1)]  # it makes room
        try:
            with saver.interruptible(2, lambda: save(2)):
                if not ranks.leads():
                    os.kill(os.getpid(), signal.SIGTERM)
                    told.append("not reached")
        except StoppedError:
            told.append(lies(2))
    try:
        ranks.passes(7, None, "sft")
    except ConfigError as error:
        told.append(str(error))
    return told


if __name__ == "__main__":
    own, *others = (Path(argument) for argument in sys.argv[1:])
    start_process(0, DeepSpeedConfig())
    losses: dict[str, Any] = {"unbroken": {case.name: train(case, own) for case in CASES}}
    for saved in (own, *others):
        losses[saved.name] = {case.name: train(case, own, resume=saved / case.name) for case in CASES}
    told = ranks.gather([[ranks.rank()], f"of {ranks.size()}"] if ranks.leads() else [0.1, "ä"])
    shares = ranks.gather(ranks.share(range(7)))
    saved_together = ranks.gather([saves(own)])
    if ranks.leads():
        said = {"told": told, "shares": shares, "saves": saved_together}
        (own / "losses.json").write_text(json.dumps(losses | said))
    end(0)
