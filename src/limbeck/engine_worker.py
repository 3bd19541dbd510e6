"""The process that holds an engine for `limbeck.engine_process`: one JSON value a line, in and out.

    in   first the engine: {"folder": ..., "model": {...}, "engine": {...}}; then requests: [number, {...}],
         or, while none is unanswered, new weights: {"weights": folder}
    out  first "ready"; then answers: [number, {...}], tokens sampled so far: 1234, "loaded" after new
         weights, or, last, an error

It ends when its input ends: so it does not outlive the stage, however that was killed.
"""

import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from limbeck.config import EngineConfig, ModelConfig
from limbeck.errors import EngineError, LimbeckError
from limbeck.loading import loading
from limbeck.sampling import SampleRequest

if TYPE_CHECKING:
    from limbeck.sampler import VllmSampler

INCOMING = msgspec.json.Decoder(tuple[int, SampleRequest] | dict[str, str])
"""Of lines after the first one."""
BEAT_SECONDS = 1.0
"""The time between two counts of tokens; by them the stage sees that the engine is alive."""


def main(requests: IO[bytes], answers: IO[bytes]) -> int:
    """Load the engine and serve until the input ends.

    Returns:
        0, or the exit code of the error that ended it.
    """
    encoder = msgspec.json.Encoder()

    def say(value: object) -> None:
        answers.write(encoder.encode(value) + b"\n")

    try:
        _serve(requests, answers, say)
    except LimbeckError as error:
        say({"exit_code": error.exit_code, "message": str(error)})
        answers.flush()
        return error.exit_code
    return 0


def _serve(requests: IO[bytes], answers: IO[bytes], say: Callable[[object], None]) -> None:
    """Add what comes in to the running batch, and send what it finishes, step by step."""
    with loading():
        from limbeck.sampler import VllmSampler  # noqa: PLC0415 - loads vLLM, which prints

    asked = json.loads(requests.readline())
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(requests, inbox), daemon=True).start()
    sampler = VllmSampler(
        Path(asked["folder"]),
        ModelConfig.model_validate(asked["model"]),
        EngineConfig.model_validate(asked["engine"]),
    )
    threading.Thread(target=_watch, args=(sampler,), daemon=True).start()
    say("ready")
    answers.flush()
    beat = time.monotonic()
    while True:
        while not sampler.busy or not inbox.empty():  # an idle engine waits here
            match INCOMING.decode(inbox.get()):
                case {"weights": folder}:
                    sampler.load_weights(Path(folder))
                    say("loaded")
                    answers.flush()
                case (number, request):
                    sampler.add(number, request)
        finished = sampler.step()
        for number, sample in finished:
            say((number, sample))
        now = time.monotonic()
        if now - beat > BEAT_SECONDS:
            beat = now
            say(sampler.num_tokens)
            answers.flush()
        elif finished:
            answers.flush()


def _receive(requests: IO[bytes], inbox: "queue.SimpleQueue[bytes]") -> None:
    """Pass lines on; when there are no more, end this process and the engine's own ones."""
    for line in requests:
        inbox.put(line)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _watch(sampler: "VllmSampler") -> None:
    """End this process when vLLM's own one is gone: vLLM 0.32 would wait for its next output for ever."""
    while not sampler.core_died:
        time.sleep(BEAT_SECONDS)
    os._exit(EngineError.exit_code)


if __name__ == "__main__":
    # What engines print on stdout would mix with the answers.
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    code = 1
    try:
        code = main(sys.stdin.buffer, channel)
    except Exception:  # noqa: BLE001 - the entry point: the stage is told by the exit code
        traceback.print_exc()
    os._exit(code)  # engines leave threads and exit handlers behind that can hang or crash
