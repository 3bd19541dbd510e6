"""The real thing on loopback: `vllm serve` as a black box gives what the model gives in an engine of ours."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from limbeck import local, processes
from limbeck.config import OpenAIConfig, parse_config
from limbeck.engine_process import EngineProcess
from limbeck.manifest import Manifest
from limbeck.openai_sampler import OpenAISampler
from limbeck.preflight.endpoint import check_server
from limbeck.records import Completion, Judgement
from limbeck.rows import read_rows
from limbeck.sampling import RefusedError, Sample, SampleRequest
from limbeck.stages import generate, judge
from limbeck.storage import Store
from tests import given, tiny
from tests.engines import open_process

KEY = "a-key-of-the-tests-0123456789"
NAME = "tiny-teacher"
PATIENCE_SECONDS = 300.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", width=256)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[OpenAIConfig]:
    """A server of the model; its key is in the environment of this module's tests."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(folder), "--served-model-name", NAME, "--dtype", "float32", "--enforce-eager"]
    command += ["--max-model-len", "64", "--host", "127.0.0.1", "--port", str(port)]
    log = folder.parent / "server.log"
    with pytest.MonkeyPatch.context() as patch, log.open("w") as output:
        patch.setenv("OPENAI_API_KEY", KEY)
        process = subprocess.Popen(
            command,
            env=local.environment() | {"VLLM_API_KEY": KEY, "VLLM_CPU_KVCACHE_SPACE": "1"},
            stdout=output,
            stderr=output,
            start_new_session=True,
            text=True,
            preexec_fn=processes.dies_with_parent(signal.SIGKILL),  # noqa: PLW1509 - one call, nothing loaded
        )
        try:
            config = OpenAIConfig(base_url=f"http://127.0.0.1:{port}/v1", max_concurrent=8)
            deadline = time.monotonic() + PATIENCE_SECONDS
            while check_server(NAME, config, []):
                assert process.poll() is None, log.read_text()[-5000:]
                assert time.monotonic() < deadline, log.read_text()[-5000:]
                time.sleep(0.5)
            yield config
        finally:
            processes.stop(process, 10)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[EngineProcess]:
    process = open_process(folder)
    yield process
    process.close()


@pytest.fixture
def sampler(server: OpenAIConfig) -> Iterator[OpenAISampler]:
    black_box = OpenAISampler(NAME, server)
    yield black_box
    black_box.close()


def answers(asked: EngineProcess | OpenAISampler, temperature: float) -> dict[int, Sample]:
    """Twelve answers."""
    requests = [
        SampleRequest(asked.chat_prompt(f"sum {a} {b}"), temperature, 12, seed=7, logprobs=True)
        for a in "abcd"
        for b in "ijk"
    ]
    found = dict(asked.stream(enumerate(requests)))
    return {number: sample for number, sample in found.items() if isinstance(sample, Sample)}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_it_answers_and_counts_as_the_engine_does(
    engine: EngineProcess, sampler: OpenAISampler, temperature: float
) -> None:
    ours, theirs = answers(engine, temperature), answers(sampler, temperature)
    assert len(theirs) == 12
    for number, sample in theirs.items():
        expected = ours[number]
        assert (sample.text, sample.finish_reason) == (expected.text, expected.finish_reason)
        assert sample.logprob == pytest.approx(expected.logprob, abs=1e-3)
        assert sample.num_tokens == expected.num_tokens
        assert sample.num_prompt_tokens("") == len(engine.chat_prompt("sum a i"))


def test_a_prompt_that_is_too_long_is_refused_alone(sampler: OpenAISampler) -> None:
    long, short = (SampleRequest("sum " + "a " * count, 0.0, 4) for count in (80, 2))
    found = dict(sampler.stream([(0, long), (1, short)]))
    assert isinstance(found[1], Sample)
    assert isinstance(found[0], RefusedError)
    assert "HTTP 400" in str(found[0])
    assert "64" in str(found[0])


def test_the_stages_make_rows_of_it_that_the_engine_would_make(
    server: OpenAIConfig, engine: EngineProcess, store: Store, work_uri: str, tmp_path: Path
) -> None:
    config = parse_config(
        {
            "teacher": {"sampler": "openai"},
            "openai": server.model_dump(),
            "generate": {"teacher": {"samples_per_prompt": 1, "temperatures": [0.0], "max_tokens": 8}},
            "judge": {"template": "judge {prompt} : = {completion}"},
        }
    )
    prompts = Manifest.model_validate_json(
        Path(given.prompts(store, work_uri, tmp_path, count=40)["path"]).read_text()
    )

    def opened() -> OpenAISampler:
        return OpenAISampler(NAME, server)

    made = generate.run(prompts, "m", opened, config, store, work_uri, role="teacher")
    judged = judge.run(prompts, made, "m", opened, config, store, work_uri)
    texts = [row.text for row in read_rows(store, made, Completion)]
    verdicts = [row.p_correct for row in read_rows(store, judged, Judgement)]

    asked = [row.prompt for row in given.some_prompts(40)]
    questions = [f"judge {prompt} : = {text}" for prompt, text in zip(asked, texts, strict=True)]
    requests = [SampleRequest(engine.chat_prompt(prompt), 0.0, 8) for prompt in asked]
    requests += [
        SampleRequest(engine.chat_prompt(question), 0.0, 1, verdict=("yes", "no")) for question in questions
    ]
    expected = dict(engine.stream(enumerate(requests)))
    assert texts == [expected[number].text for number in range(40)]
    # The API gives 20 tokens of the 34 that this model knows: now and then a word is not among them.
    both = [number for number, verdict in enumerate(verdicts) if 0 < verdict < 1]
    assert [verdicts[number] for number in both] == pytest.approx(
        [expected[40 + number].p_first for number in both], abs=1e-3
    )
    assert len(set(texts)) > 1
    assert len({round(verdicts[number], 3) for number in both}) >= 3
