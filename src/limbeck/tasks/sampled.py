"""The model that `generate`, `judge` and `evaluate` sample from."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck import checkpoints, models
from limbeck.config import Chat, Config
from limbeck.errors import ConfigError
from limbeck.manifest import digest
from limbeck.storage import Store
from limbeck.tasks.artifacts import Artifact, read

if TYPE_CHECKING:
    from limbeck.engine_process import EngineProcess


@contextmanager
def model(
    config: Config, path: str, checkpoint: Artifact | None, role: str, chat: Chat
) -> "Iterator[tuple[Store, str, Callable[[], EngineProcess]]]":
    """A model to sample from: a given checkpoint, or the base model at a path; opened when asked for."""
    store, settings = Store(), config.model(role)
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

        def open_sampler() -> "EngineProcess":
            from limbeck.engine_process import EngineProcess

            folder = Path(scratch) / "model"
            if given:
                folder = checkpoints.fetch(store, given, folder)
            else:
                folder = models.check_folder(checkpoints.fetch_base(store, path, folder), path)
            return EngineProcess(folder, settings, config.engine, chat)

        yield store, digest([model_hash, settings.dtype, chat.enable_thinking]), open_sampler
