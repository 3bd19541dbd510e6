"""The tasks of the stages that train: pass artifacts on, choose the trainer, call the stage.

On one node they work in a child process (`limbeck.tasks.attempts`), on several a TrainJob does
(`limbeck.tasks.launching`). Nothing heavy is imported, and no client made, outside of the work.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck import chat as chats
from limbeck import checkpoints, refining, torchrun
from limbeck.config import Config, PpoReward, parse_config
from limbeck.errors import ConfigError
from limbeck.loading import loading
from limbeck.manifest import Manifest
from limbeck.nodes import Node
from limbeck.records import Source
from limbeck.storage import Store
from limbeck.tasks import attempts, launching, policy_ranks, sampled
from limbeck.tasks.artifacts import Artifact, MetricsArtifact, Settings, one_of, read, task, write
from limbeck.tasks.specs import AnySpec, PpoSpec, RewardSpec, SftSpec

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
    train_jobs: Settings | None = None,
) -> None:
    """See `limbeck.stages.sft`."""

    def given() -> SftSpec:
        return SftSpec(
            work_uri=work_uri,
            config=config,
            variant=variant,
            labelled=read(labelled, "labelled"),
            model=model,
            selection=selection,
            role=role,
        )

    _train("sft", config, variant, given, train_jobs, checkpoint)


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
    train_jobs: Settings | None = None,
) -> None:
    """See `limbeck.stages.reward`."""

    def given() -> RewardSpec:
        return RewardSpec(
            work_uri=work_uri,
            config=config,
            variant=variant,
            teacher_labelled=read(teacher_labelled, "labelled"),
            student_labelled=read(student_labelled, "labelled"),
            checkpoint=read(checkpoint, "checkpoint"),
            teacher=teacher,
        )

    _train("reward", config, variant, given, train_jobs, reward_model, metrics)


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
    train_jobs: Settings | None = None,
) -> None:
    """See `limbeck.stages.ppo`."""

    def given() -> PpoSpec:
        return PpoSpec(
            work_uri=work_uri,
            config=config,
            variant=variant,
            prompts=read(prompts, "prompts"),
            labels=read(labels, "labels"),
            checkpoint=read(checkpoint, "checkpoint"),
            reward_model=read(reward_model, "reward_model"),
            reward=reward,
            teacher=teacher,
        )

    _train("ppo", config, variant, given, train_jobs, policy, metrics)


def _train(
    stage: str,
    config: Settings,
    variant: str,
    given: Callable[[], AnySpec],
    settings: Settings | None,
    made: Artifact,
    metrics: MetricsArtifact | None = None,
) -> None:
    """Train, here or in a TrainJob; the manifest goes into an artifact."""
    with task(stage):
        checked = parse_config(config, variant)
        spec = given()
        if launching.num_nodes(checked, stage) > 1:
            from limbeck.cluster_api import own_cluster

            manifest: Manifest | None = launching.launch(spec, checked, settings or {}, own_cluster())
        else:
            manifest = attempts.run(stage, lambda: work(spec, checked, Node()), checked)
        if manifest is not None:
            write(manifest, made, metrics)


def work(spec: AnySpec, config: Config, node: Node) -> Manifest | None:
    """Do a training as one of its nodes; what it made, None of a node that does not lead."""
    match spec:
        case SftSpec():
            return _sft(spec, config, node)
        case RewardSpec():
            return _reward(spec, config, node)
        case PpoSpec():
            return _ppo(spec, config, node)


def _sft(spec: SftSpec, config: Config, node: Node) -> Manifest | None:
    from limbeck.stages import sft as stage

    if config.asks_a_server(spec.role):
        raise ConfigError(
            "a black-box teacher cannot be tuned",
            where="sft, parameter role",
            expected="`student`, or a teacher whose weights are there (teacher.sampler: vllm)",
            got=spec.role,
            remedy="Leave this row out",
        )
    store = Store()

    def train(**arguments: Any) -> Any:
        processes = node.num_processes(config.sft.deepspeed.processes)
        if node.count * processes > 1:
            return torchrun.train_sft(node, processes, **arguments)
        with loading():
            from limbeck.trainer.sft import train_sft
        return train_sft(**arguments)

    do: Callable[..., Manifest | None] = stage.run if node.leads else stage.follow
    return do(
        labelled=spec.labelled,
        base_hash=checkpoints.identity(store, spec.model),
        fetch_base=lambda folder: checkpoints.fetch_base(store, spec.model, folder),
        train=train,
        config=config,
        store=store,
        work_uri=spec.work_uri,
        selection=one_of(spec.selection, stage.Selection, "sft, parameter selection"),
        role=one_of(spec.role, Source, "sft, parameter role"),
        variant=spec.variant,
    )


def _reward(spec: RewardSpec, config: Config, node: Node) -> Manifest | None:
    from limbeck.stages import reward as stage

    store = Store()
    from_teacher = config.reward.init == "teacher"
    if from_teacher and not spec.teacher:
        raise ConfigError(
            "the reward model cannot start from the teacher",
            where="reward, parameter teacher",
            expected="the teacher's checkpoint folder (reward.init is teacher)",
            got="none",
            remedy="Give it, or set reward.init: student",
        )

    def fetch_base(folder: Path) -> Path:
        if from_teacher:
            return checkpoints.fetch_base(store, spec.teacher, folder)
        return checkpoints.fetch(store, spec.checkpoint, folder)

    def train(**arguments: Any) -> Any:
        processes = node.num_processes(config.reward.deepspeed.processes)
        if node.count * processes > 1:
            return torchrun.train_reward(node, processes, **arguments)
        with loading():
            from limbeck.trainer.reward import train_reward
        return train_reward(**arguments)

    identity = checkpoints.identity(store, spec.teacher) if from_teacher else spec.checkpoint.content_hash
    do: Callable[..., Manifest | None] = stage.run if node.leads else stage.follow
    return do(
        teacher_labelled=spec.teacher_labelled,
        student_labelled=spec.student_labelled,
        base_hash=identity,
        fetch_base=fetch_base,
        train=train,
        config=config,
        store=store,
        work_uri=spec.work_uri,
        variant=spec.variant,
    )


def _ppo(spec: PpoSpec, config: Config, node: Node) -> Manifest | None:
    from limbeck.stages import ppo as stage

    def open_tokenizer(folder: Path) -> Callable[[str], list[int]]:
        from limbeck.engine_process import load_tokenizer

        tokenizer, chat = load_tokenizer(folder, config.student), config.chat("student")
        return lambda message: chats.prompt_ids(tokenizer, chat, message)

    def open_sampler(folder: Path) -> "VllmSampler":
        with loading():
            from limbeck.sampler import VllmSampler
        return VllmSampler(folder, config.student, refining.engine(config), config.chat("student"))

    def train(**arguments: Any) -> Any:
        processes = node.num_processes(config.ppo.deepspeed.processes)
        if node.count * processes > 1:
            return policy_ranks.train_policy(node, processes, spec.teacher, **arguments)
        return refining.refine(open_sampler=open_sampler, **arguments)

    kind: PpoReward = one_of(spec.reward, PpoReward, "ppo, parameter reward")
    do: Callable[..., Manifest | None] = stage.run if node.leads else stage.follow
    with sampled.judge_of_rollouts(config, spec.teacher if kind == "judge" else "") as judge:
        inputs = stage.PpoInputs(
            prompts=spec.prompts,
            labels=spec.labels,
            checkpoint=spec.checkpoint,
            reward_model=spec.reward_model,
            reward=kind,
            teacher=judge,
            variant=spec.variant,
        )
        return do(inputs, open_tokenizer, train, config, Store(), spec.work_uri)
