"""One of the processes of a training: it does its part of a job, with local files alone.

python -m limbeck.trainer.worker JOB     run by torchrun, which `limbeck.torchrun` starts
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from limbeck import processes
from limbeck.errors import LimbeckError, StoppedError
from limbeck.jobs import ERRORS, OUTCOME, ROWS, Error, Job, Outcome
from limbeck.records import LabelledCompletion
from limbeck.trainer import ranks
from limbeck.trainer.rank_saver import RankSaver


def main(path: Path) -> int:
    """Do the job; the exit code of this process."""
    job = Job.model_validate_json(path.read_bytes())
    return work(job, lambda saver: _train(job, saver))


def work(job: Job, train: Callable[[RankSaver], Outcome]) -> int:
    """Do a job in this way; the exit code of this process."""
    processes.die_with(os.getppid())
    try:
        with RankSaver(job.name, job.checkpoint_seconds, job.folder) as saver:
            outcome = train(saver)
    except StoppedError:
        outcome = Outcome(stopped=True)
    except LimbeckError as error:
        said = Error(exit_code=error.exit_code, message=str(error))
        (job.folder / ERRORS / f"{os.environ['RANK']}.json").write_text(said.model_dump_json())
        return error.exit_code
    if ranks.first_on_node():
        (job.folder / OUTCOME).write_text(outcome.model_dump_json())
    return 0


def _train(job: Job, saver: RankSaver) -> Outcome:
    """Train, with the other processes."""
    with (job.folder / ROWS).open(encoding="utf-8") as file:
        lines = list(file)  # not `splitlines`, which knows more ends of lines than JSON escapes
    if job.training == "sft":
        from limbeck.trainer.sft import train_sft  # noqa: PLC0415 - TRL is imported by who needs it

        sft = train_sft(
            base=job.base,
            pairs=[(prompt, text) for prompt, text in map(json.loads, lines)],
            config=job.config,
            folder=job.folder,
            name=job.name,
            resume_from=job.resume_from,
            saver=saver,
        )
        return Outcome(folder=sft.folder, history=sft.history)
    from limbeck.trainer.reward import train_reward  # noqa: PLC0415

    rows = [LabelledCompletion.model_validate_json(line) for line in lines]
    reward = train_reward(
        base=job.base,
        training=[row for row in rows if not row.validation],
        validation=[row for row in rows if row.validation],
        config=job.config,
        folder=job.folder,
        resume_from=job.resume_from,
        saver=saver,
    )
    return Outcome(folder=reward.folder, history=reward.history, scores=reward.validation_scores.tolist())


def end(code: int) -> NoReturn:
    """End this process: what engines leave behind hangs or crashes at the interpreter's end."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    end(main(Path(sys.argv[1])))
