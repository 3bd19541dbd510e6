"""The row stages on a black box: rows, resume, what is refused, verdicts of both kinds, cost."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from limbeck import settings
from limbeck.config import Config
from limbeck.errors import DataError, EndpointError
from limbeck.manifest import Manifest
from limbeck.openai_sampler import IN_FLIGHT, OpenAISampler
from limbeck.records import Completion, EvalResult, Judgement, Prompt, PseudoLabel, RejectedRow
from limbeck.rows import finished_parts, read_part, read_rows
from limbeck.sampling import RefusedError
from limbeck.stages import evaluate, generate, judge, label
from limbeck.stages.prepare import Prepared
from limbeck.storage import Store
from tests import openai_stub
from tests.given import prompts
from tests.openai_stub import MODEL, Fault, Stub
from tests.stage_process import finish, start
from tests.stages.conftest import ConfigFor

KEY = "sk-a-key-of-the-tests-0123456789"
SECTIONS: dict[str, dict[str, Any]] = {
    "teacher": {"sampler": "openai"},
    "openai": {"max_concurrent": 4, "deadline_seconds": 0.1},
    "generate": {"teacher": {"samples_per_prompt": 5, "max_tokens": 20}, "rows_per_part": 20},
}
PRICES = {"prompt_price": 2.0, "completion_price": 8.0, "price_source": "EUR, the list of these tests"}


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with openai_stub.serve() as server:
        server.key = KEY
        yield server


@pytest.fixture
def config(stub: Stub, config_for: ConfigFor) -> Config:
    sections = {**SECTIONS, "openai": {**SECTIONS["openai"], **PRICES, "base_url": stub.url}}
    return config_for(**sections)


def answered(prompts: Manifest, config: Config, store: Store, work_uri: str) -> Manifest:
    return generate.run(
        prompts,
        settings.of_black_box(config, MODEL),
        lambda: OpenAISampler(MODEL, config.openai),
        config,
        store,
        work_uri,
        role="teacher",
    )


def judged(prepared: Prepared, made: Manifest, config: Config, store: Store, work_uri: str) -> Manifest:
    return judge.run(
        prepared.prompts, made, "m", lambda: OpenAISampler(MODEL, config.openai), config, store, work_uri
    )


def aside(store: Store, made: Manifest) -> list[RejectedRow]:
    items = [item for item in made.objects if "/rejected-" in item.uri]
    return [row for item in items for row in read_part(store, item, RejectedRow)]


def test_rows_bear_what_the_server_told_and_the_manifest_what_they_cost(
    stub: Stub, config: Config, store: Store, work_uri: str, prepared: Prepared
) -> None:
    made = answered(prepared.prompts, config, store, work_uri)
    rows = read_rows(store, made, Completion)
    assert len(rows) == len(stub.bodies) == prepared.prompts.num_rows * 5
    assert all(row.answer == str(row.seed % 7) and row.logprob is None for row in rows)
    tokens_in = sum(len(body["messages"][-1]["content"]) for body in stub.bodies)
    tokens_out = sum(len(row.text) for row in rows)
    assert made.metrics == {
        "generate/prompt_tokens": tokens_in,
        "generate/completion_tokens": tokens_out,
        "generate/cost": pytest.approx((2 * tokens_in + 8 * tokens_out) / 1e6),
    }


def test_one_prompt_that_is_refused_is_set_aside_with_the_servers_reason(
    stub: Stub, config: Config, store: Store, work_uri: str, prepared: Prepared
) -> None:
    long = Fault(400, content={"error": {"message": "maximum context length is 8 tokens"}})
    refused = read_rows(store, prepared.prompts, Prompt)[3]
    stub.refuses = lambda prompt: long if prompt == refused.prompt else None
    loose = config.model_copy(
        update={"generate": config.generate.model_copy(update={"max_bad_fraction": 0.1})}
    )
    made = answered(prepared.prompts, loose, store, work_uri)
    assert made.rejected == {"refused": 5}
    assert made.num_rows == (prepared.prompts.num_rows - 1) * 5
    assert {row.reason for row in aside(store, made)} == {
        "refused: HTTP 400: got HTTP 400: maximum context length is 8 tokens"
    }
    strict = config.model_copy(
        update={"generate": config.generate.model_copy(update={"max_bad_fraction": 0.01})}
    )
    with pytest.raises(DataError, match=r"too many prompts were set aside.*refused: HTTP 400"):
        answered(prepared.prompts, strict, store, f"{work_uri}/strict")


def test_a_server_that_refuses_everything_ends_the_stage_and_no_row_is_to_blame(
    stub: Stub, config: Config, store: Store, work_uri: str, prepared: Prepared
) -> None:
    stub.refuses = lambda prompt: Fault(400, content={"error": {"message": "logprobs are not supported"}})
    with pytest.raises(RefusedError, match="logprobs are not supported"):
        answered(prepared.prompts, config, store, work_uri)
    assert not [uri for uri in store.sizes(work_uri) if "rejected" in uri]
    assert len(stub.bodies) < prepared.prompts.num_rows * 5, "it was not asked for all of them"


def test_finished_rows_stay_when_the_server_goes_away_and_are_not_asked_for_again(
    stub: Stub, config: Config, store: Store, work_uri: str, prepared: Prepared
) -> None:
    """No time to store anything in between: what is stored is stored because the server went away."""
    whole = answered(prepared.prompts, config, store, f"{work_uri}/whole")
    stub.bodies.clear()
    stub.answered = 0
    stub.refuses = lambda prompt: Fault(503) if stub.answered >= 43 else None
    with pytest.raises(EndpointError, match=r"does not answer.*HTTP 503.*finished rows are kept"):
        answered(prepared.prompts, config, store, work_uri)
    stub.refuses = lambda prompt: None
    stub.bodies.clear()
    kept = stub.answered
    assert kept >= 43
    made = answered(prepared.prompts, config, store, work_uri)
    assert len(stub.bodies) == made.num_rows - kept
    assert read_rows(store, made, Completion) == read_rows(store, whole, Completion)
    assert made.content_hash == whole.content_hash
    assert made.metrics == whole.metrics, "what the first attempt paid is in it"


def test_a_killed_task_asks_again_for_what_was_not_stored_alone(
    stub: Stub, store: Store, work_uri: str, tmp_path: Path
) -> None:
    """Each row is stored at once here, so that what is paid twice is what was on its way."""
    config = {
        **SECTIONS,
        "task": {"answer_pattern": r"= (\w+)"},
        "openai": {"base_url": stub.url, "max_concurrent": 4},
        "generate": {**SECTIONS["generate"], "commit_seconds": 1e-9},
    }

    def slowly(prompt: str, body: dict[str, Any]) -> str:
        time.sleep(0.005)
        return f"{prompt} = {body['seed'] % 7}"

    stub.answer = slowly
    arguments = {
        "prompts": prompts(store, work_uri, tmp_path, count=60),
        "work_uri": work_uri,
        "config": config,
        "completions": {"path": str(tmp_path / "completions")},
        "model": MODEL,
        "role": "teacher",
        "shard": 0,
        "num_shards": 1,
        "checkpoint": None,
    }
    process = start("generate", tmp_path, **arguments)
    while stub.answered < 100:
        assert process.poll() is None, process.communicate()[0][-5000:]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    said = process.communicate()[0]
    paid = stub.answered
    (prefix,) = {uri.rpartition("/")[0] for uri in store.sizes(f"{work_uri}/generate")}
    stored = {
        row.completion_id
        for item in finished_parts(store, prefix).values()
        for row in read_part(store, item, Completion)
    }
    assert 0 <= paid - len(stored) <= IN_FLIGHT * 4
    stub.bodies.clear()
    said += finish("generate", tmp_path, **arguments)
    assert len(stub.bodies) == 300 - len(stored)
    made = Manifest.model_validate_json((tmp_path / "completions").read_text())
    assert len({row.completion_id for row in read_rows(store, made, Completion)}) == 300
    everything = said + json.dumps(arguments) + made.to_json()
    assert KEY not in everything


def test_verdicts_by_log_probabilities(
    stub: Stub, config: Config, store: Store, work_uri: str, prepared: Prepared
) -> None:
    made = answered(prepared.prompts, config, store, work_uri)
    stub.bodies.clear()
    stub.top = [("Yes", -0.2), (" no", -1.8)]
    stub.answer = lambda prompt, body: "Yes"
    found = judged(prepared, made, config, store, work_uri)
    rows = read_rows(store, found, Judgement)
    assert len(rows) == len(stub.bodies) == made.num_rows
    assert [row.p_correct for row in rows] == [pytest.approx(1 / (1 + 2.71828**-1.6), abs=1e-4)] * len(rows)
    assert all(body["max_tokens"] == 1 and body["temperature"] == 0 for body in stub.bodies)
    assert found.metrics["judge/completion_tokens"] == 3 * len(rows)
    assert found.metrics["judge/cost"] > 0


def test_the_system_prompt_goes_to_the_teacher_and_not_to_the_judge_which_votes_in_both_orders(
    stub: Stub, store: Store, work_uri: str, tmp_path: Path
) -> None:
    """Through the tasks, which choose how each of them is asked."""
    stub.answer = lambda prompt, body: (
        "cannot say"
        if "= 3\n" in prompt
        else prompt[prompt.index("one word, ") + 10 :].split(" or ")[0]
        if "one word, " in prompt
        else f"<think>{prompt} = 9</think>{prompt} = {body['seed'] % 7}"
    )
    arguments = {
        "prompts": prompts(store, work_uri, tmp_path, count=8),
        "work_uri": work_uri,
        "model": MODEL,
        "config": {
            **SECTIONS,
            "teacher": {"sampler": "openai", "enable_thinking": True},
            "task": {"answer_pattern": r"= (\w+)", "system_prompt": "Be short.", "strip_thinking": True},
            "openai": {"base_url": stub.url, "max_concurrent": 4, "send_seeds": True},
            "judge": {"votes": 4, "temperature": 0.5},
        },
    }
    completions, judgements = ({"path": str(tmp_path / name)} for name in ("completions", "judgements"))
    of_teacher = {"role": "teacher", "shard": 0, "num_shards": 1, "checkpoint": None}
    finish("generate", tmp_path, **arguments, **of_teacher, completions=completions)
    asked = list(stub.bodies)
    assert len(asked) == 40
    assert all([message["role"] for message in body["messages"]] == ["system", "user"] for body in asked)
    assert all(body["messages"][0] == {"role": "system", "content": "Be short."} for body in asked)
    assert all(body["chat_template_kwargs"] == {"enable_thinking": True} for body in asked)

    stub.bodies.clear()
    finish("judge", tmp_path, **arguments, completions=completions, judgements=judgements)
    assert [[message["role"] for message in body["messages"]] for body in stub.bodies] == [["user"]] * 160
    assert all(body["chat_template_kwargs"] == {"enable_thinking": False} for body in stub.bodies)
    assert all(body["temperature"] == 0.5 for body in stub.bodies)
    assert {body["seed"] for body in stub.bodies} == {0, 1, 2, 3}
    assert not [body for body in stub.bodies if "think" in body["messages"][0]["content"]]

    found, made = (
        Manifest.model_validate_json(Path(output["path"]).read_text()) for output in (judgements, completions)
    )
    rows = read_rows(store, found, Judgement)
    texts = [row.answer for row in read_rows(store, made, Completion)]
    unsaid = {"p_correct": 0.0, "p_yes_first": None, "p_no_first": None}
    said = {"p_correct": 0.5, "p_yes_first": 1.0, "p_no_first": 0.0}
    assert "3" in texts
    assert [row.model_dump(include=set(said)) for row in rows] == [
        unsaid if answer == "3" else said for answer in texts
    ]
    assert found.metrics["judge/prompt_tokens"] == sum(
        len(body["messages"][0]["content"]) for body in stub.bodies
    )
    words = {"3": 4 * len("cannot say")}
    assert [row.num_tokens for row in rows] == [words.get(str(answer), 2 * len("yesno")) for answer in texts]


def test_verdicts_by_text_where_no_log_probabilities_are_offered(
    stub: Stub, config: Config, store: Store, work_uri: str, prepared: Prepared
) -> None:
    """A verdict that is neither word, and a question that is refused, count as wrong."""
    made = answered(prepared.prompts, config, store, work_uri)
    completions = read_rows(store, made, Completion)
    stub.answer = lambda prompt, body: (
        "yes" if "= 1\n" in prompt else "no" if "= 2\n" in prompt else "I cannot say"
    )
    stub.refuses = lambda prompt: Fault(400) if "= 3\n" in prompt else None
    found = judged(prepared, made, config, store, work_uri)
    rows = read_rows(store, found, Judgement)
    assert [row.p_correct for row in rows] == [float(row.answer == "1") for row in completions]
    assert found.rejected == {"refused": sum(row.answer == "3" for row in completions)}


def test_without_log_probabilities_the_share_of_the_votes_is_the_probability_that_label_calibrates(
    stub: Stub, config_for: ConfigFor, store: Store, work_uri: str, prepared: Prepared
) -> None:
    """Of four verdicts on a completion that ends in 1, three say yes; on one that ends in 2, one does."""
    sections = {
        **SECTIONS,
        "openai": {**SECTIONS["openai"], "base_url": stub.url, "top_logprobs": 0, "send_seeds": True},
        "judge": {"votes": 4, "temperature": 0.5},
    }
    config = config_for(**sections)
    stub.answer = lambda prompt, body: f"{prompt} = {1 if body['seed'] % 4 else 2}"
    made = answered(prepared.prompts, config, store, work_uri)
    stub.answer = lambda prompt, body: "yes" if body["seed"] < (3 if "= 1\n" in prompt else 1) else "no"
    found = judged(prepared, made, config, store, work_uri)
    shares = {row.completion_id: row.p_correct for row in read_rows(store, found, Judgement)}
    expected = {
        row.completion_id: 0.75 if row.answer == "1" else 0.25 for row in read_rows(store, made, Completion)
    }
    assert shares == expected
    assert set(shares.values()) == {0.25, 0.75}

    def labels(**settings: Any) -> set[str | None]:
        asked = config_for(**sections, label={"min_p_correct": 0.8, **settings})
        outputs = label.run(prepared.prompts, [made], [found], None, asked, store, work_uri)
        return {row.answer for row in read_rows(store, outputs.labels, PseudoLabel)}

    with pytest.raises(DataError, match="no prompt got a pseudo label"):
        labels()
    # Most completions end in 1, so one that does agrees with the others more often than three times in four.
    assert labels(calibrate="majority") - {None} == {"1"}


def test_the_teachers_evaluation_tells_its_cost(
    stub: Stub, config: Config, store: Store, work_uri: str, prepared: Prepared
) -> None:
    made = evaluate.run(
        prepared.heldout,
        prepared.gold,
        "m",
        lambda: OpenAISampler(MODEL, config.openai),
        config,
        store,
        work_uri,
        name="teacher",
    )
    rows = read_rows(store, made, EvalResult)
    assert made.metrics["evaluate/completion_tokens"] == sum(len(row.text) for row in rows) > 0
    assert made.metrics["evaluate/cost"] == pytest.approx(
        (2 * made.metrics["evaluate/prompt_tokens"] + 8 * made.metrics["evaluate/completion_tokens"]) / 1e6
    )


def test_the_key_and_how_fast_is_asked_decide_no_result_but_the_server_and_the_model_do(
    config: Config,
) -> None:
    def hashed(name: str = MODEL, **changes: Any) -> str:
        server = config.openai.model_copy(update=changes)
        return settings.of_black_box(config.model_copy(update={"openai": server}), name)

    same: dict[str, Any] = {
        "max_concurrent": 1,
        "requests_per_minute": 3.0,
        "deadline_seconds": 9.0,
        "prompt_price": 5.0,
    }
    assert hashed(**same) == hashed()
    others = [
        hashed("other"),
        hashed(base_url="https://else.example/v1"),
        hashed(revision="2"),
        hashed(send_seeds=False),
        hashed(top_logprobs=0),
    ]
    assert len({hashed(), *others}) == 6
