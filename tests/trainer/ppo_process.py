"""One of several processes that refine a policy, each with a vLLM engine of its own.

python -m tests.trainer.ppo_process STUDENT REWARD_MODEL FOLDER CASE...    run by test_processes_ppo.py
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

from limbeck.answers import extract_answer
from limbeck.config import Config, ModelConfig, parse_config
from limbeck.engine_process import EngineProcess
from limbeck.jobs import OUTBOX, PIDS, PpoRun
from limbeck.judging import RolloutJudge
from limbeck.records import PpoPrompt
from limbeck.sampling import LiveSampler
from limbeck.saver import StateSaver
from limbeck.trainer import ranks
from limbeck.trainer.engines import start_process
from limbeck.trainer.ppo import train_ppo
from limbeck.trainer.rank_saver import RankSaver
from limbeck.trainer.worker import end
from tests import saving
from tests.engines import ENGINE

PROMPTS = [
    PpoPrompt(prompt_id=f"{a}{b}", message=f"sum {a} {b}", label=None if a == "c" else "w")
    for a in "abcdefgh"
    for b in "ijkl"
]
NUM_VALIDATION = 7
NUM_UPDATES, SAVED = 5, 2
"""A run, and the state that a killed one leaves."""


class Case(NamedTuple):
    """One run, as it is told on the command line."""

    name: str
    zero_stage: int
    resume_from: str
    """A training state; empty: from the start."""
    dies: bool
    """Whether its last process is killed in the round after the state `SAVED`."""


def config(zero_stage: int) -> Config:
    """Everything that is taken over a round or an update is in it; its passes differ with the processes."""
    ppo = {
        "num_updates": NUM_UPDATES,
        "batch_size": 32,
        "samples_per_prompt": 2,
        "num_minibatches": 2,
        "micro_batch_size": 4,
        "packing": zero_stage == 3,  # up to rounding the same
        "max_tokens": 6,
        "learning_rate": 1e-3,
        "value_learning_rate": 1e-3,
        "anneal_lr": False,
        "max_grad_norm": 1e3,
        "kl_coef": 0.1,
        "adaptive_kl": True,
        "target_kl": 0.05,
        "whiten_rewards": True,
        "missing_eos_penalty": 0.5,
        "critic_warmup_updates": 1,
        "evaluate_every": 2,
        "validation_samples": 1,
        "deepspeed": {"zero_stage": zero_stage},
    }
    return parse_config(
        {
            "student": {"dtype": "float32"},
            "teacher": {"dtype": "float32"},
            "engine": ENGINE.model_dump(),
            "task": {"answer_pattern": r"(?:^| )(w)(?: |$)"},
            "judge": {"template": "judge {prompt} : {completion} = {first} {second}"},
            "ppo": ppo,
        }
    )


def run(
    case: Case,
    student: Path,
    reward_folder: Path,
    sampler: LiveSampler,
    folder: Path,
    saver: StateSaver,
    judge: RolloutJudge | None = None,
) -> PpoRun:
    """Refine the student: a toy task with labels and without; or what a judge likes, if one is given."""
    settings = config(case.zero_stage)

    def agrees(text: str, label: str) -> bool:
        if case.dies and ranks.rank() == 1 and (folder / OUTBOX / f"{SAVED:08d}").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return extract_answer(text, settings.task) == label

    return train_ppo(
        student,
        reward_folder,
        sampler,
        PROMPTS,
        PROMPTS[:NUM_VALIDATION],
        agrees,
        "judge" if judge else "mixed",
        settings,
        folder,
        Path(case.resume_from) if case.resume_from else None,
        saver,
        judge,
    )


def main(student: Path, reward_folder: Path, folder: Path, cases: list[Case]) -> None:
    """Run the cases one after another; the first process writes how they went."""
    start_process(0, config(1).ppo.deepspeed)
    sampler = EngineProcess(student, ModelConfig(dtype="float32"), ENGINE)
    seen = Path(f"/proc/{sampler.pid}/environ").read_text().split("\0")
    (folder / f"environment-{ranks.rank()}.json").write_text(json.dumps(seen))
    for case in cases:
        own = folder / case.name
        for name in (PIDS, OUTBOX):
            (own / name).mkdir(parents=True, exist_ok=True)
        ranks.barrier()
        with RankSaver(case.name, saving.OFTEN if case.dies else saving.NEVER, own) as saver:
            made = run(case, student, reward_folder, sampler, own, saver)
        if ranks.leads():
            (own / "history.json").write_text(json.dumps(made.course.history))
    sampler.close()


def told(case: Case) -> str:
    """A case for the command line."""
    return json.dumps(case)


if __name__ == "__main__":
    first, second, third, *rest = sys.argv[1:]
    given: list[Any] = [json.loads(text) for text in rest]
    main(Path(first), Path(second), Path(third), [Case(*item) for item in given])
    end(0)
