"""The model that `generate`, `judge` and `evaluate` sample from, and the judge of the rollouts of `ppo`."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from limbeck import checkpoints, models, settings
from limbeck.config import Chat, Config
from limbeck.errors import ConfigError
from limbeck.rollout_judge import Teacher
from limbeck.sampling import OpenSampler, StreamingSampler
from limbeck.storage import Store
from limbeck.tasks.artifacts import Artifact, read

JUDGED = Chat(enable_thinking=False)
"""How the judge is spoken to: its verdict is the first token."""


@contextmanager
def model(
    config: Config, path: str, checkpoint: Artifact | None, role: str, chat: Chat
) -> Iterator[tuple[Store, str, OpenSampler]]:
    """A model to sample from: a given checkpoint, or the base model at a path; opened when asked for.

    A black-box teacher has a name instead of a path.
    """
    store, loading = Store(), config.model(role)
    if config.asks_a_server(role):
        yield store, settings.of_black_box(config, path), _black_box(config, path, checkpoint, chat)
        return
    given = read(checkpoint, "checkpoint") if checkpoint else None
    if given is None and not path:
        raise ConfigError(
            "no model to load",
            where="parameters model and checkpoint",
            expected="the URI of a Hugging Face folder in `model`, or a `checkpoint`",
            got="neither",
            remedy="Give one of them",
        )
    model_hash = given.content_hash if given else checkpoints.identity(store, path)
    with tempfile.TemporaryDirectory() as scratch:

        def open_sampler() -> StreamingSampler:
            from limbeck.engine_process import EngineProcess

            folder = Path(scratch) / "model"
            if given:
                folder = checkpoints.fetch(store, given, folder)
            else:
                folder = models.check_folder(checkpoints.fetch_base(store, path, folder), path)
            return EngineProcess(folder, loading, config.engine, chat)

        yield store, settings.of_engine(model_hash, loading.dtype, chat.enable_thinking), open_sampler


@contextmanager
def judge_of_rollouts(config: Config, teacher: str) -> Iterator[Teacher | None]:
    """The teacher beside the models that PPO trains, in its share of the GPU; None where none is named."""
    if not teacher:
        yield None
        return
    with model(_beside(config), teacher, None, "teacher", JUDGED) as (_, model_hash, open_sampler):
        yield Teacher(model_hash, open_sampler)


def fetch_teacher(config: Config, teacher: str, folder: Path) -> str:
    """The teacher's folder on this machine, downloaded if need be, or its name at its server."""
    if config.asks_a_server("teacher"):
        return teacher
    return str(models.check_folder(checkpoints.fetch_base(Store(), teacher, folder), teacher))


def open_teacher(config: Config, teacher: str) -> StreamingSampler:
    """What `fetch_teacher` has given, beside the models that PPO trains."""
    from limbeck.engine_process import EngineProcess

    if config.asks_a_server("teacher"):
        return _black_box(config, teacher, None, JUDGED)()
    return EngineProcess(Path(teacher), config.teacher, _beside(config).engine, JUDGED)


def _beside(config: Config) -> Config:
    """The settings with the teacher's share of the GPU."""
    share = {"gpu_memory_utilization": config.ppo.judge_gpu_memory_utilization}
    return config.model_copy(update={"engine": config.engine.model_copy(update=share)})


def _black_box(config: Config, name: str, checkpoint: Artifact | None, chat: Chat) -> OpenSampler:
    """A model that a server runs."""
    if checkpoint or not name:
        raise ConfigError(
            "a black-box teacher is called by its name",
            where="parameters model and checkpoint",
            expected="in `model` what its server calls it, and no `checkpoint`",
            got="a checkpoint" if checkpoint else "no name",
            remedy="Correct it, or set teacher.sampler: vllm",
        )
    if config.teacher.enable_thinking is None:  # its server may not know the word, so the judge is silent too
        chat = chat._replace(enable_thinking=None)

    def open_sampler() -> StreamingSampler:
        from limbeck.openai_sampler import OpenAISampler

        return OpenAISampler(name, config.openai, chat)

    return open_sampler
