"""What `bench.generate` and `bench.judge` compare: a stage with an engine that it keeps, and raw vLLM.

Both have the settings of a run file: the demo's with its own teacher, which is made by training once, or that
of `make demo-smollm2`. Raw vLLM is in a process of its own, so that neither side holds the other's objects.
"""

import argparse
import contextlib
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from bench.measured import Growth
from limbeck import local, seaweed
from limbeck.config import Config, EngineConfig, ModelConfig
from limbeck.demo import task
from limbeck.manifest import Manifest, commit
from limbeck.records import Prompt, row_id
from limbeck.rows import write_rows
from limbeck.run_file import load_run_file
from limbeck.sampling import Answer, ChatPrompt, SampleRequest, StreamingSampler
from limbeck.storage import Store

if TYPE_CHECKING:
    from limbeck.engine_process import EngineProcess

ROOT = Path(__file__).parents[1]
MODELS = ROOT / "build/bench/models"
Name = Literal["demo", "smollm2"]
NAMES: tuple[Name, ...] = ("demo", "smollm2")


@dataclass(frozen=True)
class Asked:
    """A model, the settings of its run file, and questions for it."""

    name: Name
    folder: Path
    config: Config
    prompts: tuple[str, ...]
    """What is asked, without the run file's template."""


def asked(name: Name, num_prompts: int) -> Asked:
    """A model of `make demo` or `make demo-smollm2`, made if it is not there yet."""
    if name == "demo":
        from limbeck.demo.models import make_checkpoint  # noqa: PLC0415 - imports torch

        folder = MODELS / "demo"
        if not folder.exists():
            MODELS.mkdir(parents=True, exist_ok=True)
            make_checkpoint("teacher", 1, folder, print)
        config = load_run_file(ROOT / "src/limbeck/demo/run.yaml").config
        problems = task.make_split(1, num_train=num_prompts, num_heldout=0).train
        return Asked(name, folder, config, tuple(problem.prompt for problem in problems))

    from examples.smollm2 import inputs  # noqa: PLC0415 - only this model needs it

    inputs.make(MODELS / "smollm2")
    config = load_run_file(ROOT / "examples/smollm2/run.yaml").config
    prompts = tuple(f"What is the capital of the country number {n}?" for n in range(num_prompts))
    return Asked(name, MODELS / "smollm2/teacher", config, prompts)


def put_prompts(store: Store, prompts: Sequence[str]) -> Manifest:
    """Prompts as `prepare` gives them."""
    rows = [Prompt(prompt_id=row_id(prompt), prompt=prompt) for prompt in prompts]
    return put(store, "prepare", "prompts", write_rows(store, f"s3://bench/prompts-{len(rows)}", rows))


def put(store: Store, stage: str, kind: str, *objects: Any) -> Manifest:
    """A finished output of parts."""
    manifest = Manifest(
        stage=stage,
        kind=kind,
        name=kind,
        uri=objects[0].uri.rpartition("/")[0],
        objects=objects,
        inputs={},
        config_hash="",
        code_version="",
        num_rows=sum(item.rows for item in objects),
    )
    return commit(store, manifest)


@contextlib.contextmanager
def scratch_store() -> Iterator[Store]:
    """An empty object store on this machine, with the bucket `bench`; engines start under its variables."""
    os.environ.update(local.environment())
    with tempfile.TemporaryDirectory() as scratch, seaweed.serve(Path(scratch) / "store") as store:
        store.make_bucket("s3://bench")
        yield store


@contextlib.contextmanager
def engine(given: Asked) -> Iterator["Kept"]:
    """The engine of a stage, as the stage's task would start it."""
    from limbeck.engine_process import EngineProcess  # noqa: PLC0415 - reads its environment when imported

    process = EngineProcess(given.folder, given.config.teacher, given.config.engine)
    try:
        yield Kept(process)
    finally:
        process.close()


class Kept:
    """A sampler that a stage does not close: the next round uses it again."""

    def __init__(self, sampler: "EngineProcess") -> None:
        """Keep it."""
        self._sampler: StreamingSampler = sampler
        self.pid = sampler.pid
        self.requests: list[SampleRequest] = []
        """What the stage asked last, in its order."""

    def chat_prompt(self, user_message: str) -> ChatPrompt:
        """As it does."""
        return self._sampler.chat_prompt(user_message)

    def stream(self, requests: Iterable[tuple[int, SampleRequest]]) -> Iterator[tuple[int, Answer]]:
        """As it does."""
        self.requests.clear()
        return self._sampler.stream(self._noted(requests))

    def _noted(self, requests: Iterable[tuple[int, SampleRequest]]) -> Iterator[tuple[int, SampleRequest]]:
        for number, request in requests:
            self.requests.append(request)
            yield number, request

    def restart(self) -> None:
        """As it does."""
        self._sampler.restart()

    def close(self) -> None:
        """Nothing."""


class Generated(NamedTuple):
    """What one call of `LLM.generate` took and gave."""

    seconds: float
    num_prompt_tokens: int
    num_cached_tokens: int
    """Of the prompt tokens: those that were found in the prefix cache, and not computed."""
    num_tokens: int


class RawVllm:
    """`LLM.generate` with the engine arguments and sampling parameters of the stage's engine."""

    def __init__(self, given: Asked) -> None:
        """Start it; it ends with this process."""
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        asked = given.folder, given.config.teacher, given.config.engine
        context.Process(target=_serve, args=(theirs, *asked), daemon=True).start()

    def generate(self, requests: Sequence[SampleRequest]) -> Generated:
        """Answer requests in one call; the seconds are its alone."""
        self._ours.send(list(requests))
        answer: Generated = self._ours.recv()
        return answer


def _serve(connection: Connection, folder: Path, model: ModelConfig, engine: EngineConfig) -> None:
    """The process of `RawVllm`."""
    from limbeck.sampler import VllmSampler  # noqa: PLC0415 - loads vLLM

    sampler = VllmSampler(folder, model, engine)
    llm = sampler._llm  # both sides have the same engine to the last argument
    with contextlib.suppress(EOFError):  # the other side has ended
        while True:
            requests: list[SampleRequest] = connection.recv()
            prompts = [{"prompt_token_ids": request.prompt} for request in requests]
            params = [sampler._params(request) for request in requests]
            for one in params:
                one.skip_clone = False  # as it is by default
            started = time.monotonic()
            outputs = llm.generate(prompts, params, use_tqdm=False)
            seconds = time.monotonic() - started
            connection.send(
                Generated(
                    seconds,
                    sum(len(output.prompt_token_ids) for output in outputs),
                    sum(output.num_cached_tokens or 0 for output in outputs),
                    sum(len(output.outputs[0].token_ids) for output in outputs),
                )
            )


class Grown(NamedTuple):
    """What a stage took at one size, in processes of its own."""

    tokens_per_second: float
    peak_mib: float
    """Of the stage's process."""
    engine_mib: float
    """Of its engine's."""


def growths(
    stage: str, measure: Callable[[int], Grown], sizes: Sequence[int], rows_each: int
) -> tuple[Growth, ...]:
    """Measure a stage at several sizes, each in a fresh process, so that its peak of memory is its own."""
    points: list[tuple[float, Grown]] = []
    for size in sizes:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            points.append((size * rows_each, pool.submit(measure, size).result()))
    return tuple(
        Growth(
            what=f"{stage}, {what}",
            model="demo",
            size="rows",
            unit=unit,
            points=tuple((rows, round(grown[place], 1)) for rows, grown in points),
        )
        for place, (what, unit) in enumerate(
            (("speed", "tokens/s"), ("peak of the stage's memory", "MiB"), ("of its engine's", "MiB"))
        )
        if points
    )


def peak_mib(pid: int | None = None) -> float:
    """The most resident memory that a process, or this one, has had."""
    status = Path(f"/proc/{pid or os.getpid()}/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


class Arguments(NamedTuple):
    """What was typed."""

    json: Path
    names: tuple[Name, ...]
    rounds: int
    growth: tuple[int, ...]


def arguments(growth: tuple[int, ...]) -> Arguments:
    """Read the command line of a benchmark; `growth` is what it grows over by default."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--model", choices=(*NAMES, "all", "none"), default="all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--growth", nargs="*", type=int, default=growth, help="prompts; none: skip")
    given = parser.parse_args()
    names = {"all": NAMES, "none": ()}.get(given.model, (given.model,))
    return Arguments(given.json, names, given.rounds, tuple(given.growth))
