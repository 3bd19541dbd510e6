"""One process of reinforcement learning: opens what the policy's trainer asks, and trains.

With one process this is the stage's own; with several each rank of them is one, and is told in a `PpoJob`
what the stage has fetched and decided. Each has the policy in a sampler of its own on its GPU, and the judge
where the teacher is the reward.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from limbeck.answers import extract_answer
from limbeck.comparing import Comparer
from limbeck.config import Config, EngineConfig, PpoReward
from limbeck.errors import ConfigError
from limbeck.jobs import PpoRun
from limbeck.loading import loading
from limbeck.records import PpoPrompt
from limbeck.rollout_judge import Judging, opened
from limbeck.sampling import LiveSampler
from limbeck.saver import StateSaver

OpenLiveSampler = Callable[[Path], LiveSampler]
"""Opens a vLLM engine on a checkpoint folder."""


def engine(config: Config) -> EngineConfig:
    """The settings of the policy's engine: it has a share of its GPU."""
    share = {"gpu_memory_utilization": config.ppo.gpu_memory_utilization}
    return config.engine.model_copy(update=share)


def check_engines(config: Config, processes: int) -> None:
    """Refuse what is not for several processes on a node.

    Args:
        config: `engine` is read.
        processes: On each node.

    Raises:
        ConfigError: when each of them would want several GPUs.
    """
    if processes > 1 and config.engine.gpus > 1 and config.ppo.sampler == "vllm":
        raise ConfigError(
            "engines over several GPUs beside several training processes",
            where="engine.tensor_parallel_size, engine.pipeline_parallel_size",
            expected="1: the engine of each process of ppo has that one's GPU",
            got=f"{config.engine.gpus} GPUs an engine, {processes} processes",
            remedy="Set it to 1, or ppo.deepspeed.processes to 1",
        )


def open_policy(student: Path, open_sampler: OpenLiveSampler, config: Config) -> LiveSampler:
    """What samples the rollouts of a student, by `ppo.sampler`; the arguments are those of `refine`."""
    if config.ppo.sampler == "vllm":
        return open_sampler(student)
    with loading():
        from limbeck.trainer.transformers_sampler import TransformersSampler  # noqa: PLC0415 - loads DeepSpeed

    batch_size, chat = config.engine.max_num_seqs, config.chat("student")
    return TransformersSampler(student, config.student.dtype, batch_size, chat)


def refine(
    student: Path,
    reward_folder: Path,
    open_sampler: OpenLiveSampler,
    prompts: Sequence[PpoPrompt],
    validation: Sequence[PpoPrompt],
    reward: PpoReward,
    judging: Judging | None,
    config: Config,
    folder: Path,
    resume_from: Path | None,
    saver: StateSaver,
) -> PpoRun:
    """Refine a warmed-up student with `ppo.algorithm`.

    Args:
        student: Its checkpoint folder: the policy's start, and the reference.
        reward_folder: The reward model's checkpoint folder.
        open_sampler: Opens a vLLM engine, where that is to sample.
        prompts: What rollouts answer.
        validation: Labelled prompts kept out of training.
        reward: `model`, `agreement`, `mixed` or `judge`.
        judging: Of the reward `judge`.
        config: What the stage `ppo` reads.
        folder: An empty folder for the result and states.
        resume_from: A training state saved by an earlier attempt.
        saver: Takes training states; already entered.

    Raises:
        StoppedError: after SIGTERM, when the state is stored.
    """
    with loading():
        from limbeck.trainer import ranks  # noqa: PLC0415 - loads DeepSpeed
        from limbeck.trainer.group_relative import train_group_relative  # noqa: PLC0415 - loads DeepSpeed
        from limbeck.trainer.ppo import train_ppo  # noqa: PLC0415 - loads DeepSpeed

    train = train_ppo if config.ppo.algorithm == "ppo" else train_group_relative
    with Comparer(config.task) as comparer:

        def agrees(text: str, label: str) -> bool:
            answer = extract_answer(text, config.task)
            return answer is not None and comparer.same(answer, label)

        sampler = open_policy(student, open_sampler, config)
        with opened(judging, config) if judging else nullcontext() as judge:
            run = train(
                student,
                reward_folder,
                sampler,
                prompts,
                validation,
                agrees,
                reward,
                config,
                folder,
                resume_from,
                saver,
                judge,
            )
        num_slow = int(ranks.total_of(comparer.num_slow))
        sampler.close()
    return replace(run, num_slow=num_slow)
