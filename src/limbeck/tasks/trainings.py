"""The tasks of the stages that train: choose the trainer, pass artifacts on, call the stage.

They work in a child process: see `limbeck.tasks.attempts`. Nothing heavy is imported, and no client made,
outside of `work`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck import checkpoints, torchrun
from limbeck.config import Config, PpoReward
from limbeck.errors import ConfigError
from limbeck.manifest import Manifest
from limbeck.nodes import Node
from limbeck.records import Source
from limbeck.storage import Store
from limbeck.tasks import attempts, sampled
from limbeck.tasks.artifacts import Artifact, MetricsArtifact, Settings, one_of, read

if TYPE_CHECKING:
    from limbeck.sampler import VllmSampler


def sft(
    *,
    labelled: Artifact,
    model: str,
    work_uri: str,
    config: Settings,
    checkpoint: Artifact,
    selection: str,
    role: str = "student",
    variant: str = "",
) -> None:
    """See `limbeck.stages.sft`."""

    def work(checked: Config) -> Manifest:
        from limbeck.stages import sft as stage

        if checked.asks_a_server(role):
            raise ConfigError(
                "a black-box teacher cannot be tuned",
                where="sft, parameter role",
                expected="`student`, or a teacher whose weights are there (teacher.sampler: vllm)",
                got=role,
                remedy="Leave this row out",
            )
        store = Store()

        def train(**arguments: Any) -> Any:
            node = Node.from_environment()
            processes = node.num_processes(checked.sft.deepspeed.processes)
            if node.count * processes > 1:
                return torchrun.train_sft(node, processes, **arguments)
            from limbeck.trainer.sft import train_sft

            return train_sft(**arguments)

        return stage.run(
            labelled=read(labelled, "labelled"),
            base_hash=checkpoints.identity(store, model),
            fetch_base=lambda folder: checkpoints.fetch_base(store, model, folder),
            train=train,
            config=checked,
            store=store,
            work_uri=work_uri,
            selection=one_of(selection, stage.Selection, "sft, parameter selection"),
            role=one_of(role, Source, "sft, parameter role"),
            variant=variant,
        )

    attempts.in_child("sft", config, work, checkpoint, variant=variant)


def reward(
    *,
    teacher_labelled: Artifact,
    student_labelled: Artifact,
    checkpoint: Artifact,
    work_uri: str,
    config: Settings,
    reward_model: Artifact,
    metrics: MetricsArtifact,
    teacher: str,
    variant: str = "",
) -> None:
    """See `limbeck.stages.reward`."""

    def work(checked: Config) -> Manifest:
        from limbeck.stages import reward as stage

        store, student = Store(), read(checkpoint, "checkpoint")
        from_teacher = checked.reward.init == "teacher"
        if from_teacher and not teacher:
            raise ConfigError(
                "the reward model cannot start from the teacher",
                where="reward, parameter teacher",
                expected="the teacher's checkpoint folder (reward.init is teacher)",
                got="none",
                remedy="Give it, or set reward.init: student",
            )

        def fetch_base(folder: Path) -> Path:
            if from_teacher:
                return checkpoints.fetch_base(store, teacher, folder)
            return checkpoints.fetch(store, student, folder)

        def train(**arguments: Any) -> Any:
            node = Node.from_environment()
            processes = node.num_processes(checked.reward.deepspeed.processes)
            if node.count * processes > 1:
                return torchrun.train_reward(node, processes, **arguments)
            from limbeck.trainer.reward import train_reward

            return train_reward(**arguments)

        return stage.run(
            teacher_labelled=read(teacher_labelled, "labelled"),
            student_labelled=read(student_labelled, "labelled"),
            base_hash=checkpoints.identity(store, teacher) if from_teacher else student.content_hash,
            fetch_base=fetch_base,
            train=train,
            config=checked,
            store=store,
            work_uri=work_uri,
            variant=variant,
        )

    attempts.in_child("reward", config, work, reward_model, metrics, variant=variant)


def ppo(
    *,
    prompts: Artifact,
    labels: Artifact,
    checkpoint: Artifact,
    reward_model: Artifact,
    work_uri: str,
    config: Settings,
    policy: Artifact,
    metrics: MetricsArtifact,
    reward: str,
    teacher: str,
    variant: str = "",
) -> None:
    """See `limbeck.stages.ppo`."""

    def work(checked: Config) -> Manifest:
        from limbeck.stages import ppo as stage

        def open_sampler(folder: Path) -> "VllmSampler":
            from limbeck.sampler import VllmSampler

            share = {"gpu_memory_utilization": checked.ppo.gpu_memory_utilization}
            engine = checked.engine.model_copy(update=share)
            return VllmSampler(folder, checked.student, engine, checked.chat("student"))

        def train(**arguments: Any) -> Any:
            if checked.ppo.algorithm == "ppo":
                from limbeck.trainer.ppo import train_ppo

                return train_ppo(**arguments)
            from limbeck.trainer.group_relative import train_group_relative

            return train_group_relative(**arguments)

        kind: PpoReward = one_of(reward, PpoReward, "ppo, parameter reward")
        with sampled.judge_of_rollouts(checked, teacher if kind == "judge" else "") as judge:
            return stage.run(
                prompts=read(prompts, "prompts"),
                labels=read(labels, "labels"),
                checkpoint=read(checkpoint, "checkpoint"),
                reward_model=read(reward_model, "reward_model"),
                open_sampler=open_sampler,
                train=train,
                config=checked,
                store=Store(),
                work_uri=work_uri,
                reward=kind,
                teacher=judge,
                variant=variant,
            )

    attempts.in_child("ppo", config, work, policy, metrics, variant=variant)
