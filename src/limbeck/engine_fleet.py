"""Several engines that share the rows of one task, each a process with all weights and GPUs of its own.

vLLM 0.32 refuses data parallel engines in one process (entrypoints/llm.py), and rows need nothing of each
other: so each engine is an `EngineProcess`, and whichever has most room gets the next request.
"""

import os
import select
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from limbeck.config import Chat, EngineConfig, ModelConfig
from limbeck.devices import num_gpus
from limbeck.engine_process import EngineProcess
from limbeck.errors import ConfigError, EngineError
from limbeck.sampling import Sample, SampleRequest


class EngineFleet:
    """A `StreamingSampler`: `engine.data_parallel_size` engines."""

    def __init__(
        self, folder: Path, model: ModelConfig, engine: EngineConfig, chat: Chat | None = None
    ) -> None:
        """Load a checkpoint folder into all of them, side by side.

        Raises:
            ConfigError: when there are fewer GPUs than they take.
            EngineError: when vLLM cannot load or run it.
        """
        shares = devices(engine, os.environ.get("CUDA_VISIBLE_DEVICES"), num_gpus())
        with ThreadPoolExecutor(len(shares)) as pool:
            started = [pool.submit(EngineProcess, folder, model, engine, chat, share) for share in shares]
        failed = [error for item in started if (error := item.exception())]
        self._engines = [item.result() for item in started if not item.exception()]
        if failed:
            self.close()
            raise failed[0]

    def chat_prompt(self, user_message: str) -> list[int]:
        """Token ids of a user message in the model's chat template, up to where the answer begins."""
        return self._engines[0].chat_prompt(user_message)

    def stream(self, requests: Iterable[tuple[int, SampleRequest]]) -> Iterator[tuple[int, Sample]]:
        """Answers with their requests' numbers, in the order in which they finish.

        When an engine dies, the others finish what they have first: only its own requests are lost.

        Raises:
            ConfigError: when the two words of a verdict begin with the same token.
            EngineError: when an engine died, or sampled no token for `engine.stall_seconds`.
        """
        waiting = iter(requests)
        died: EngineError | None = None
        while True:
            while died is None:
                engine = max(self._engines, key=lambda one: one.room)
                item = next(waiting, None) if engine.room > 0 else None
                if item is None:
                    break
                try:
                    engine.ask(*item)
                except EngineError as error:
                    died = error
            busy = [engine for engine in self._engines if engine.in_flight and not engine.ended]
            if not busy:
                break
            patience = max(0.0, min(engine.patience_seconds for engine in busy))
            readable, _, _ = select.select(busy, [], [], patience)
            for engine in readable or [engine for engine in busy if engine.patience_seconds <= 0]:
                try:
                    found = engine.collect()
                except EngineError as error:
                    died = error
                else:
                    yield from found
        if died is not None:
            raise died

    def restart(self) -> None:
        """Start those again that have ended, side by side, with the same weights.

        Raises:
            EngineError: when one does not come up.
        """
        ended = [engine for engine in self._engines if engine.ended]
        with ThreadPoolExecutor(max(1, len(ended))) as pool:
            list(pool.map(lambda engine: engine.restart(), ended))

    def close(self) -> None:
        """End all processes."""
        for engine in self._engines:
            engine.close()


def devices(engine: EngineConfig, visible: str | None, count: int) -> list[str | None]:
    """The GPUs of each engine, as CUDA_VISIBLE_DEVICES names them; None for each where there are none.

    Args:
        engine: How many engines there are, and how many GPUs each has.
        visible: CUDA_VISIBLE_DEVICES of this process, if it is set.
        count: How many GPUs this process sees.

    Raises:
        ConfigError: when there are fewer than they take.
    """
    if not count:
        return [None] * engine.data_parallel_size
    named = visible.split(",") if visible else [str(number) for number in range(count)]
    if len(named) < engine.gpus * engine.data_parallel_size:
        raise ConfigError(
            "fewer GPUs than the engines take",
            where="config.engine",
            expected=f"{engine.gpus * engine.data_parallel_size}: {engine.data_parallel_size} engines "
            f"(data_parallel_size) of {engine.gpus} GPUs each",
            got=str(len(named)),
            remedy="Lower data_parallel_size, or give the task more GPUs",
        )
    starts = range(0, engine.gpus * engine.data_parallel_size, engine.gpus)
    return [",".join(named[start : start + engine.gpus]) for start in starts]
