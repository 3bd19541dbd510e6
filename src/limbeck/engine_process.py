"""An engine in a process of its own, which can crash, hang and be killed without the stage.

The process is ours (`limbeck.engine_worker`), not vLLM's EngineCore process. All of vLLM is in it, so a
stage never loads vLLM, a hang anywhere in it can be ended, and a new process frees all of a GPU's memory.
Without a GPU it also starts 15 to 20 s sooner: vLLM's would load everything a second time there. On GPUs
vLLM starts its own processes below ours, in the same process group, which is what is killed.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from limbeck import chat as chats
from limbeck.config import Chat, EngineConfig, ModelConfig
from limbeck.errors import ConfigError, EngineError
from limbeck.loading import loading
from limbeck.sampling import Sample, SampleRequest
from limbeck.warm import ADDRESS, Started

WORKER, LOADED = "limbeck.engine_worker", "limbeck.sampler:load_worker"
"""The module that the process runs, and the function that loads vLLM before it is forked."""

ENCODER = msgspec.json.Encoder()
INCOMING = msgspec.json.Decoder(tuple[int, Sample] | str | int | dict[str, Any])
"""What the process says, in the words of its module."""

IN_FLIGHT = 2
"""Requests handed out, as a multiple of `max_num_seqs`: one share decodes, one waits to take its place."""
END_SECONDS = 10.0
"""What a process that closed its output gets to end by itself, so that its exit code is known."""

OF_RANKS = ("RANK", "WORLD_SIZE", "MASTER_", "LOCAL_", "GROUP_", "ROLE_", "TORCHELASTIC_", "PET_")
"""How the variables begin by which torchrun tells a process that it is one of several."""


class EngineProcess:
    """A `StreamingSampler` and a `LiveSampler`: a vLLM engine in a child process."""

    def __init__(
        self,
        folder: Path,
        model: ModelConfig,
        engine: EngineConfig,
        chat: Chat | None = None,
        devices: str | None = None,
    ) -> None:
        """Load a checkpoint folder; `chat` says how `chat_prompt` puts questions.

        `devices` names the GPUs that it sees, as CUDA_VISIBLE_DEVICES does; None: all that this process sees.

        Raises:
            EngineError: when vLLM cannot load or run it.
        """
        self._folder, self._model, self._engine, self._chat = folder, model, engine, chat or Chat()
        self._devices = devices
        self._tokens = -1
        self._launch()  # it loads vLLM while this process loads the tokenizer
        try:
            self._tokenizer = load_tokenizer(folder, model)
            self._prompt_ids = chats.asking(self._tokenizer, self._chat)
        except EngineError:
            self._end()
            raise
        self._wait_until_ready()

    def chat_prompt(self, user_message: str) -> list[int]:
        """Token ids of a user message in the model's chat template, up to where the answer begins."""
        return chats.prompt_ids(self._tokenizer, self._chat, user_message)

    def prompt_ids(self, user_message: str) -> list[int]:
        """The same, as reinforcement learning asks for it."""
        return self._prompt_ids(user_message)

    def sample(self, requests: Sequence[SampleRequest]) -> list[Sample]:
        """One sample for each request, in order.

        Raises:
            ConfigError, EngineError: as `stream` does.
        """
        samples = dict(self.stream(enumerate(requests)))
        return [samples[number] for number in range(len(requests))]

    def load_weights(self, folder: Path) -> None:
        """Take over the weights of a checkpoint folder of the same shape; nothing may be in flight.

        Raises:
            EngineError: when the engine died.
        """
        self._send({"weights": str(folder)})
        while "loaded" not in self._receive(None):
            pass

    def stream(self, requests: Iterable[tuple[int, SampleRequest]]) -> Iterator[tuple[int, Sample]]:
        """Answers with their requests' numbers, in the order in which they finish.

        Raises:
            ConfigError: when the two words of a verdict begin with the same token.
            EngineError: when the engine died, or sampled no token for `engine.stall_seconds`.
        """
        waiting = iter(requests)
        while True:
            while self.room > 0:
                item = next(waiting, None)
                if item is None:
                    break
                self.ask(*item)
            if not self.in_flight:
                return
            yield from self.collect()

    @property
    def room(self) -> int:
        """How many more requests may be handed out: some decode, as many wait to take their places."""
        return IN_FLIGHT * self._engine.max_num_seqs - self.in_flight

    @property
    def patience_seconds(self) -> float:
        """How long it may still be without a token; below 0 it has stalled."""
        return self._engine.stall_seconds - (time.monotonic() - self._counted)

    def fileno(self) -> int:
        """What can be read from when an answer or a count of tokens comes, or the engine ends."""
        return self._answers.fileno()

    def ask(self, number: int, request: SampleRequest) -> None:
        """Hand out one request.

        Raises:
            ConfigError, EngineError: when the engine has ended; see `stream`.
        """
        if not self.in_flight:
            self._counted = time.monotonic()
        self._send((number, request))
        self.in_flight += 1

    def collect(self) -> list[tuple[int, Sample]]:
        """Wait until something comes; answers with their requests' numbers, or none yet.

        Raises:
            ConfigError, EngineError: when the engine has ended or stalled; see `stream`.
        """
        found: list[tuple[int, Sample]] = []
        for value in self._receive(self.patience_seconds):
            if isinstance(value, tuple):
                self.in_flight -= 1
                self._counted = time.monotonic()
                found.append(value)
            elif value != self._tokens:
                self._tokens, self._counted = value, time.monotonic()
        return found

    def restart(self) -> None:
        """End what is left of the engine and start it again, with the weights of its first folder.

        Raises:
            EngineError: when it does not come up.
        """
        self._end()
        self._launch()
        self._wait_until_ready()

    def close(self) -> None:
        """End the process."""
        self._end()

    @property
    def ended(self) -> bool:
        """Whether it must be started again."""
        return self._ended

    @property
    def pid(self) -> int:
        """The id of the process, which leads a group of its own."""
        return self._process.pid

    def _launch(self) -> None:
        """Start a process and tell it what to load."""
        self._unread = b""
        env = _environment(os.environ) | ({"CUDA_VISIBLE_DEVICES": self._devices} if self._devices else {})
        (its_input, requests), (answers, its_output) = os.pipe(), os.pipe()
        self._process = _start(env, its_input, its_output)
        os.close(its_input)
        os.close(its_output)
        self._requests = os.fdopen(requests, "wb", buffering=0)
        self._answers = os.fdopen(answers, "rb", buffering=0)
        self._ended = False
        self.in_flight = 0
        self._tokens, self._counted = -1, time.monotonic()
        self._send(
            {
                "folder": str(self._folder),
                # A teacher's settings also say who runs it.
                "model": self._model.model_dump(include=set(ModelConfig.model_fields)),
                "engine": self._engine.model_dump(),
            }
        )

    def _wait_until_ready(self) -> None:
        """Loading a large model takes many minutes, so there is no limit to it but vLLM's own."""
        while "ready" not in self._receive(None):
            pass

    def _send(self, value: object) -> None:
        """Write one line; the process always reads, also while it decodes."""
        line = memoryview(ENCODER.encode(value) + b"\n")
        try:
            while line:
                line = line[self._requests.write(line) :]
        except OSError as error:
            self._receive(0)  # an error that it has told is a better reason
            raise self._dead() from error

    def _receive(self, timeout_seconds: float | None) -> list[Any]:
        """The next lines that came; None waits for ever.

        Raises:
            ConfigError: when the process ended with one.
            EngineError: when it ended, or nothing came in time; it is killed then.
        """
        channel = self._answers.fileno()
        timeout = None if timeout_seconds is None else max(0.0, timeout_seconds)
        if not select.select([channel], [], [], timeout)[0]:
            if timeout_seconds == 0:
                return []
            self._end()
            raise EngineError(
                "the engine stalled",
                got=f"no token for {self._engine.stall_seconds:g} s (engine.stall_seconds)",
                remedy="See the log",
            )
        data = os.read(channel, 1 << 20)
        if not data:
            raise self._dead()
        *lines, self._unread = (self._unread + data).split(b"\n")
        values = [INCOMING.decode(line) for line in lines]
        for value in values:
            if isinstance(value, dict):
                self._end()
                kind = ConfigError if value["exit_code"] == ConfigError.exit_code else EngineError
                raise kind(value["message"])
        return values

    def _dead(self) -> EngineError:
        """Why the process ended without a word."""
        with contextlib.suppress(subprocess.TimeoutExpired, TimeoutError):
            self._process.wait(END_SECONDS)
        code = self._process.poll()
        self._end()
        how = f"exit code {code}" if code is None or code >= 0 else signal.Signals(-code).name
        return EngineError(
            "the engine's process ended",
            got=how,
            remedy="See the log; SIGKILL is most often the system out of memory",
        )

    def _end(self) -> None:
        """Kill the process and all below it."""
        if self._ended:
            return
        self._ended = True
        with contextlib.suppress(ProcessLookupError, ConnectionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._requests.close()
        self._answers.close()


def load_tokenizer(folder: Path, model: ModelConfig) -> Any:
    """The tokenizer of a checkpoint folder, without an engine.

    Raises:
        EngineError: when there is none that can be loaded.
    """
    try:
        with loading():
            from transformers import AutoTokenizer  # noqa: PLC0415 - seconds, while an engine comes up
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=model.trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise EngineError(
            "no tokenizer that can be loaded",
            where=folder.name,
            got=str(error)[:600],
            remedy="Check the checkpoint",
        ) from error


def _start(env: dict[str, str], its_input: int, its_output: int) -> "subprocess.Popen[bytes] | Started":
    """Start the process: as a fork of one that has loaded vLLM already, where a local run has such."""
    if address := os.environ.get(ADDRESS):
        with contextlib.suppress(OSError):
            return Started(
                address,
                [WORKER],
                env=env,
                streams=(its_input, its_output, 2),
                imports=(LOADED,),
                process_group=True,
            )
    return subprocess.Popen(
        [sys.executable, "-m", WORKER], stdin=its_input, stdout=its_output, process_group=0, env=env
    )


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """What an engine's process is told: nothing of the process group that its owner trains in.

    Beside one of several training processes on a machine it sees the GPU of that one alone.
    """
    told = {name: value for name, value in ours.items() if not name.startswith(OF_RANKS)}
    if int(ours.get("LOCAL_WORLD_SIZE", "1")) > 1:
        rank, visible = int(ours["LOCAL_RANK"]), ours.get("CUDA_VISIBLE_DEVICES")
        told["CUDA_VISIBLE_DEVICES"] = visible.split(",")[rank] if visible else str(rank)
    return told
