"""Reinforcement learning in several processes: what a node asks of them, and what each of them does.

python -m limbeck.tasks.policy_ranks JOB     run by torchrun, which `limbeck.torchrun` starts
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from limbeck import refining, torchrun
from limbeck.config import Config, OpenAIConfig, PpoReward
from limbeck.errors import ConfigError
from limbeck.jobs import Outcome, PpoJob, PpoRun
from limbeck.nodes import Node
from limbeck.records import PpoPrompt
from limbeck.rollout_judge import Judging
from limbeck.sampling import LiveSampler
from limbeck.saver import Saver, StateSaver
from limbeck.tasks import sampled


def train_policy(
    node: Node,
    processes: int,
    teacher: str,
    student: Path,
    reward_folder: Path,
    prompts: Sequence[PpoPrompt],
    validation: Sequence[PpoPrompt],
    reward: PpoReward,
    judging: Judging | None,
    config: Config,
    folder: Path,
    resume_from: Path | None,
    saver: Saver,
) -> PpoRun:
    """`limbeck.refining.refine` in several processes; of `judging` each of them opens the teacher itself.

    Args besides those:
        node: Where this is.
        processes: On each node.
        teacher: Where the judge's weights lie, or its name at its server.

    Raises:
        ConfigError: when the algorithm, or an engine, is not for several processes.
        EngineError: when a process fails, with its last lines.
        StoppedError: after SIGTERM, when the state is stored.
    """
    _check(node, processes, config)
    job = PpoJob(
        training="ppo",
        name=f"ppo({reward})",
        config=config,
        base=student,
        folder=folder,
        resume_from=resume_from,
        checkpoint_seconds=config.ppo.deepspeed.checkpoint_seconds,
        reward_folder=reward_folder,
        prompts=tuple(prompts),
        validation=tuple(validation),
        reward=reward,
        teacher=sampled.fetch_teacher(config, teacher, folder / "teacher") if judging else "",
        questions=dict(judging.questions) if judging else {},
        lines=tuple(judging.lines) if judging else (),
    )
    outcome = torchrun.run(job, node, processes, saver, worker=__name__)
    if outcome.course is None or outcome.folder is None:
        raise AssertionError(outcome)  # `_train` gives both
    return PpoRun(outcome.folder, outcome.course, outcome.num_slow)


def _check(node: Node, processes: int, config: Config) -> None:
    """Settings that are not for several processes."""
    if config.ppo.algorithm != "ppo":
        raise ConfigError(
            f"{config.ppo.algorithm} in several processes",
            where="ppo.algorithm",
            expected="ppo, which alone shares its rounds out",
            got=f"{node.count * processes} processes",
            remedy="Set ppo.deepspeed.processes: 1, and nodes: 1",
        )
    refining.check_engines(config, processes)


def main(path: Path) -> int:
    """Do the job as one of its processes; the exit code."""
    from limbeck.trainer import worker

    job = PpoJob.model_validate_json(path.read_bytes())
    return worker.work(job, lambda saver: _train(job, saver))


def _train(job: PpoJob, saver: StateSaver) -> Outcome:
    """Train, with the other processes."""
    from limbeck.engine_process import EngineProcess
    from limbeck.trainer import ranks
    from limbeck.trainer.engines import start_process

    config = job.config
    start_process(config.seed, config.ppo.deepspeed)
    shared = config.model_copy(update={"openai": share_of(config.openai, ranks.size())})

    def open_sampler(folder: Path) -> LiveSampler:
        return EngineProcess(folder, config.student, refining.engine(config), config.chat("student"))

    judging = Judging(lambda: sampled.open_teacher(shared, job.teacher), job.questions, job.lines)
    run = refining.refine(
        student=job.base,
        reward_folder=job.reward_folder,
        open_sampler=open_sampler,
        prompts=job.prompts,
        validation=job.validation,
        reward=job.reward,
        judging=judging if job.teacher else None,
        config=config,
        folder=job.folder,
        resume_from=job.resume_from,
        saver=saver,
    )
    return Outcome(folder=run.folder, course=run.course, num_slow=run.num_slow)


def share_of(limits: OpenAIConfig, count: int) -> OpenAIConfig:
    """The limits of one of several processes that ask a server together."""
    rates = {
        name: rate / count
        for name in ("requests_per_minute", "tokens_per_minute")
        if (rate := getattr(limits, name)) is not None
    }
    return limits.model_copy(update={"max_concurrent": max(1, limits.max_concurrent // count), **rates})


if __name__ == "__main__":
    from limbeck.trainer.worker import end

    end(main(Path(sys.argv[1])))
