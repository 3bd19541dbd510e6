"""The teacher judges rollouts as the stage `judge` does completions: real engines, and a stub of a server."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scipy.special import expit, logit

from limbeck.calibration import NUM_FOLDS, Line, fold, to_metrics
from limbeck.config import Config, parse_config
from limbeck.engine_process import EngineProcess
from limbeck.errors import DataError, EngineError
from limbeck.manifest import Manifest, commit
from limbeck.openai_sampler import OpenAISampler
from limbeck.records import Completion, Judgement, PpoPrompt
from limbeck.rollout_judge import TeacherJudge, lines_of
from limbeck.rows import read_rows, write_rows
from limbeck.sampling import RefusedError, StreamingSampler
from limbeck.stages import judge
from limbeck.storage import Store
from tests import openai_stub, tiny
from tests.engines import open_process
from tests.fakes import ScriptedSampler
from tests.given import some_prompts
from tests.openai_stub import MODEL, Fault, Stub

pytestmark = pytest.mark.usefixtures("forked_engines")
TEMPLATE = "judge {prompt} : {completion} = {first} {second}"
PROMPTS = some_prompts(12)
QUESTIONS = {row.prompt_id: row.prompt for row in PROMPTS}
ASKED = [PpoPrompt(prompt_id=row.prompt_id, message=f"q {row.prompt}", label=None) for row in PROMPTS]
TEXTS = [f"<think> {n} </think> = {'abcdefghijkl'[n]}" for n in range(len(PROMPTS))]
SEEDS = list(range(100, 100 + len(PROMPTS)))


def config(**sections: Any) -> Config:
    engine = {"max_model_len": 64, "kv_cache_mib": 64, "enforce_eager": True}
    return parse_config({"engine": engine, "judge": {"template": TEMPLATE}, **sections})


def p_correct(sampler: StreamingSampler, settings: Config, texts: list[str] = TEXTS) -> list[float | None]:
    asked = TeacherJudge(sampler, QUESTIONS, (), settings)(ASKED, texts, SEEDS)
    return [verdict.p_correct for verdict in asked]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("teacher") / "model", seed=5)


@pytest.fixture(scope="module")
def teacher(folder: Path) -> Iterator[EngineProcess]:
    """A tiny teacher in a process of its own, as PPO has it."""
    engine = open_process(folder)
    yield engine
    engine.close()


def test_a_rollout_earns_what_the_stage_judge_says_of_the_same_completion(
    store: Store, work_uri: str, folder: Path, teacher: EngineProcess
) -> None:
    """In both orders of the words, and of the completion without its thinking."""
    settings = config(judge={"template": TEMPLATE, "votes": 2}, task={"strip_thinking": True})
    rows = [
        Completion(
            completion_id=row.prompt_id, prompt_id=row.prompt_id, source="teacher", text=text, answer=None,
            temperature=1.0, sample_index=0, seed=0, logprob=None, num_tokens=1, finish_reason="stop",
        )
        for row, text in zip(PROMPTS, TEXTS, strict=True)
    ]  # fmt: skip

    def given(kind: Any, content: list[Any]) -> Manifest:
        uri = f"{work_uri}/{kind}"
        return commit(
            store,
            Manifest(
                stage="test", kind=kind, name=kind, uri=uri, objects=(write_rows(store, uri, content),),
                inputs={}, config_hash="", code_version="",
            ),
        )  # fmt: skip

    prompts, completions = given("prompts", PROMPTS), given("completions", rows)
    made = judge.run(prompts, completions, "m", lambda: open_process(folder), settings, store, work_uri)
    said = {row.prompt_id: row.p_correct for row in read_rows(store, made, Judgement)}
    found = p_correct(teacher, settings)
    assert found == pytest.approx([said[row.prompt_id] for row in PROMPTS], abs=1e-5)
    assert len({round(value or 0.0, 3) for value in found}) > 3, "a teacher that tells nothing apart"


def test_a_rollout_that_is_too_long_for_the_judge_has_no_verdict_and_the_others_have_theirs(
    teacher: EngineProcess,
) -> None:
    found = p_correct(teacher, config(), [*TEXTS[:3], "a " * 60, *TEXTS[4:]])
    expected = p_correct(teacher, config())
    assert found[3] is None
    for place in (2, 4):
        assert found[place] == pytest.approx(expected[place], abs=1e-5)


def test_a_judge_that_is_killed_between_two_rounds_comes_back_and_says_the_same(
    teacher: EngineProcess,
) -> None:
    before = p_correct(teacher, config())
    killed = teacher.pid
    os.kill(killed, signal.SIGKILL)
    assert p_correct(teacher, config()) == pytest.approx(before, abs=1e-5)
    assert teacher.pid != killed


def test_a_judge_that_dies_too_often_ends_the_run() -> None:
    dead = ScriptedSampler(lambda prompt, seed: "yes", deadly=lambda prompt, seed: True)
    with pytest.raises(EngineError, match=r"does not stay alive.*at most 1 restarts"):
        p_correct(dead, config(engine={"max_restarts": 1}))


def test_a_rollout_that_kills_the_engine_has_no_verdict() -> None:
    sampler = ScriptedSampler(lambda prompt, seed: "yes", deadly=lambda prompt, seed: TEXTS[4] in prompt)
    found = p_correct(sampler, config(engine={"max_model_len": 2048}))
    assert [place for place, value in enumerate(found) if value is None] == [4]


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-key-of-the-tests-0123456789")
    with openai_stub.serve() as server:
        yield server


def black_box(stub: Stub, **judge: Any) -> tuple[OpenAISampler, Config]:
    settings = config(
        teacher={"sampler": "openai"},
        openai={"base_url": stub.url, "deadline_seconds": 0.1},
        judge={"template": TEMPLATE, **judge},
    )
    return OpenAISampler(MODEL, settings.openai), settings


def test_a_black_box_is_sent_the_question_without_the_words_of_the_task_and_a_seed_of_round_and_row(
    stub: Stub,
) -> None:
    stub.answer = lambda prompt, body: "yes" if body["seed"] % 2 else "no"
    sampler, settings = black_box(stub, votes=2, temperature=1.0)
    asked = TeacherJudge(sampler, QUESTIONS, (), settings)(ASKED, TEXTS, SEEDS)
    assert {verdict.p_correct for verdict in asked} == {0.5}, "one seed of the two is odd"
    assert {body["seed"] for body in stub.bodies} == {seed + vote for seed in SEEDS for vote in (0, 1)}
    sent = [body["messages"] for body in stub.bodies]
    assert {message[0]["content"] for message in sent} == {
        f"judge {QUESTIONS[item.prompt_id]} : {text} = {words}"
        for item, text in zip(ASKED, TEXTS, strict=True)
        for words in ("yes no", "no yes")
    }
    assert sum(verdict.num_tokens for verdict in asked) == len("yesno") * len(ASKED)
    sampler.close()


def test_a_rollout_that_a_server_refuses_and_one_that_it_says_nothing_of_have_no_verdict(stub: Stub) -> None:
    stub.answer = lambda prompt, body: "perhaps" if TEXTS[2] in prompt else "yes"
    stub.refuses = lambda prompt: Fault(400) if TEXTS[5] in prompt else None
    sampler, settings = black_box(stub)
    found = p_correct(sampler, settings)
    assert [place for place, value in enumerate(found) if value is None] == [2, 5]
    assert {value for value in found if value is not None} == {1.0}
    sampler.close()


def test_a_server_that_refuses_everything_ends_the_run(stub: Stub) -> None:
    stub.refuses = lambda prompt: Fault(400, content={"error": {"message": "logprobs are not supported"}})
    sampler, settings = black_box(stub)
    with pytest.raises(RefusedError, match="logprobs are not supported"):
        p_correct(sampler, settings)
    sampler.close()


def test_verdicts_are_calibrated_by_the_line_of_their_prompts_part() -> None:
    lines = [Line(slope=0.5, offset=part / 2 - 1) for part in range(NUM_FOLDS)]
    sampler = ScriptedSampler(lambda prompt, seed: "yes")
    verdicts = TeacherJudge(sampler, QUESTIONS, lines, config(engine={"max_model_len": 2048}))(
        ASKED, TEXTS, SEEDS
    )
    assert len({fold(item.prompt_id) for item in ASKED}) > 2
    assert [verdict.p_correct for verdict in verdicts] == pytest.approx(
        [expit(0.5 * logit(0.9) + fold(item.prompt_id) / 2 - 1) for item in ASKED]
    )


def labels(metrics: dict[str, float]) -> Manifest:
    return Manifest(
        stage="label", kind="labels", name="labels", uri="s3://b/labels", objects=(), inputs={},
        config_hash="", code_version="", metrics=metrics,
    )  # fmt: skip


def test_lines_are_read_where_the_run_calibrates_and_must_be_there_then() -> None:
    lines = tuple(Line(1.0, 0.1 * part) for part in range(NUM_FOLDS))
    calibrates = config(label={"calibrate": "majority"})
    assert lines_of(labels(to_metrics(lines)), calibrates) == lines
    assert lines_of(labels(to_metrics(lines)), config()) == ()
    with pytest.raises(DataError, match=r"know no calibration.*label\.calibrate: none"):
        lines_of(labels({}), calibrates)
