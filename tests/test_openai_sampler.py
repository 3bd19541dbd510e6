"""A black box on loopback: what is asked of it, what is tried again, what ends a row and what the stage."""

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from limbeck.config import OpenAIConfig
from limbeck.errors import EndpointError
from limbeck.openai_sampler import OpenAISampler
from limbeck.sampling import Answer, RefusedError, Sample, SampleRequest, Usage
from tests import openai_stub
from tests.openai_stub import MODEL, Fault, Stub

KEY = "sk-a-key-of-the-tests-0123456789"
LONG = {
    "error": {"message": "This model's maximum context length is 8 tokens", "code": "context_length_exceeded"}
}


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with openai_stub.serve() as server:
        server.key = KEY
        yield server


def ask(stub: Stub, *requests: SampleRequest, name: str = MODEL, **settings: Any) -> list[Answer]:
    """The answers in the order of the requests."""
    server = OpenAIConfig(base_url=stub.url, **settings)
    sampler = OpenAISampler(name, server)
    try:
        found = dict(sampler.stream(enumerate(requests)))
    finally:
        sampler.close()
    assert sorted(found) == list(range(len(requests)))
    return [found[number] for number in range(len(requests))]


def one(text: str = "sum 1", **fields: Any) -> SampleRequest:
    return SampleRequest(text, fields.pop("temperature", 0.7), fields.pop("max_tokens", 20), **fields)


def verdict() -> SampleRequest:
    return one("is it?", temperature=0.0, max_tokens=1, verdict=("yes", "no"))


def test_a_completion_is_asked_for_in_the_apis_terms_and_comes_back_in_ours(stub: Stub) -> None:
    stub.top = [("x", -1.0)]
    stub.finish_reason = "length"
    (sample,) = ask(stub, one(seed=8, top_p=0.9, logprobs=True))
    assert stub.bodies == [
        {
            "model": MODEL,
            "messages": [{"role": "user", "content": "sum 1"}],
            "temperature": 0.7,
            "top_p": 0.9,
            "max_tokens": 20,
            "seed": 8,
            "logprobs": True,
        }
    ]
    assert sample == Sample("sum 1 = 1", [], -0.75, "length", None, Usage(5, 9))


def test_what_a_server_does_not_know_is_not_sent_to_it(stub: Stub) -> None:
    settings: dict[str, Any] = {"send_seeds": False, "top_logprobs": 0, "limit_name": "max_completion_tokens"}
    ask(stub, one(seed=8, logprobs=True), verdict(), max_concurrent=1, **settings)
    for body in stub.bodies:
        assert body.keys() == {"model", "messages", "temperature", "max_completion_tokens"}


def test_a_greedy_answer_bears_no_seed(stub: Stub) -> None:
    ask(stub, one(temperature=0.0, seed=8))
    assert "seed" not in stub.bodies[0]


def test_without_log_probabilities_or_counts_none_are_made_up(
    stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.counts = False
    first, second = ask(stub, one(logprobs=True), one(logprobs=True))
    for sample in (first, second):
        assert isinstance(sample, Sample)
        assert (sample.logprob, sample.num_tokens) == (None, 0)
    assert capsys.readouterr().out.count("counts no tokens") == 1


def test_a_verdict_is_read_from_the_first_tokens_log_probabilities(stub: Stub) -> None:
    stub.top = [(" yes", -1.0), ("Yes", -2.0), ("no", -3.0), ("maybe", -0.1)]
    (sample,) = ask(stub, verdict())
    yes, no = 0.36788 + 0.13534, 0.04979
    assert isinstance(sample, Sample)
    assert sample.p_first == pytest.approx(yes / (yes + no), abs=1e-4)
    assert stub.bodies[0]["top_logprobs"] == 20


@pytest.mark.parametrize(
    ("text", "p_first"),
    [("Yes", 1.0), ("no.", 0.0), ("**No**, it is not", 0.0), ("perhaps", None), ("", None)],
)
def test_without_log_probabilities_a_verdict_is_its_text(
    stub: Stub, capsys: pytest.CaptureFixture[str], text: str, p_first: float | None
) -> None:
    stub.answer = lambda prompt, body: text
    for sample in ask(stub, verdict(), verdict()):
        assert isinstance(sample, Sample)
        assert sample.p_first == p_first
    assert capsys.readouterr().out.count("a verdict is its text") == 1


PASSING = {
    "429": Fault(429),
    "429 with Retry-After": Fault(429, {"Retry-After": "0.1"}),
    "429 with a date": Fault(429, {"Retry-After": "Thu, 01 Jan 2026 00:00:00 GMT"}),
    "500": Fault(500),
    "503 without JSON": Fault(503, content=b"<html>busy</html>"),
    "a timeout": Fault(200, after_seconds=1.5),
    "a lost connection": Fault(None),
    "no JSON": Fault(200, content=b"well"),
    "no choices": Fault(200, content={"choices": []}),
    "a log-probability that is no number": Fault(
        200,
        content=b'{"choices": [{"message": {"content": "x"}, "logprobs": {"content": '
        b'[{"token": "x", "logprob": NaN}]}}]}',
    ),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_what_may_pass_is_tried_again(stub: Stub, fault: Fault) -> None:
    stub.faults = [fault]
    first, second = ask(stub, one("sum 1"), one("sum 2"), request_seconds=1, max_concurrent=1)
    assert isinstance(first, Sample)
    assert isinstance(second, Sample)
    assert (first.text, second.text) == ("sum 1 = 0", "sum 2 = 0")
    assert len(stub.bodies) == 3
    assert stub.bodies[0] == stub.bodies[1]


REFUSED = {
    "too long": (Fault(400, content=LONG), "HTTP 400: got HTTP 400: This model's maximum context length"),
    "filtered": (Fault(422, content={"error": {"message": f"no {KEY}"}}), r"HTTP 422: no \[key\]"),
    "too large": (Fault(413, content=b"<html>"), "HTTP 413"),
}


@pytest.mark.parametrize(("fault", "reason"), REFUSED.values(), ids=REFUSED)
def test_one_row_that_is_refused_leaves_the_others(stub: Stub, fault: Fault, reason: str) -> None:
    stub.refuses = lambda prompt: fault if prompt == "sum 3" else None
    found = ask(stub, *(one(f"sum {n}") for n in range(6)))
    assert [type(answer) for answer in found] == [RefusedError if n == 3 else Sample for n in range(6)]
    with pytest.raises(RefusedError, match=reason):
        raise found[3]  # type: ignore[misc]
    assert len(stub.bodies) == 6


ENDS = {
    "401": (Fault(401), "refuses the key.*HTTP 401.*api_secret"),
    "403": (Fault(403), "refuses the key.*HTTP 403"),
    "404": (Fault(404), "does not know the model.*parameter `teacher`"),
    "402": (Fault(402), "wants to be paid"),
    "429 for want of money": (
        Fault(429, content={"error": {"code": "insufficient_quota"}}),
        "wants to be paid",
    ),
}


@pytest.mark.parametrize(("fault", "message"), ENDS.values(), ids=ENDS)
def test_what_no_row_can_pass_ends_the_stage_at_once(stub: Stub, fault: Fault, message: str) -> None:
    stub.refuses = lambda prompt: fault
    with pytest.raises(EndpointError, match=message) as raised:
        ask(stub, *(one() for _ in range(50)), max_concurrent=2)
    assert not isinstance(raised.value, RefusedError)
    assert len(stub.bodies) < 50


def test_a_wrong_key_is_refused_and_in_no_message(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", wrong := "sk-a-wrong-key-0123456789abcdef")
    with pytest.raises(EndpointError, match="HTTP 401") as raised:
        ask(stub, one())
    assert wrong not in str(raised.value)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(EndpointError, match="HTTP 401 and no OPENAI_API_KEY"):
        ask(stub, one())


def test_a_server_that_is_away_for_longer_than_the_deadline_ends_the_stage(stub: Stub) -> None:
    stub.refuses = lambda prompt: Fault(503)
    with pytest.raises(
        EndpointError, match=r"does not answer.*within 1 s \(openai.deadline_seconds\).*HTTP 503"
    ):
        ask(stub, one(), deadline_seconds=1)


def test_a_server_that_is_not_there_is_named(stub: Stub) -> None:
    server = OpenAIConfig(base_url="http://127.0.0.1:9/v1", deadline_seconds=0.1)
    sampler = OpenAISampler(MODEL, server)
    with pytest.raises(EndpointError, match=r"does not answer in http://127.0.0.1:9/v1.*APIConnectionError"):
        list(sampler.stream([(0, one())]))
    sampler.close()


def test_a_row_that_alone_gets_no_answer_is_set_aside(stub: Stub) -> None:
    """Also when it is the last one, and nothing else is asked meanwhile."""
    stub.refuses = lambda prompt: Fault(500) if prompt == "bad" else None
    first, second = ask(stub, one("good"), one("bad"), deadline_seconds=0.1)
    assert isinstance(first, Sample)
    assert isinstance(second, RefusedError)
    assert "no answer, though the server gives others" in str(second)


def test_a_busy_server_is_no_rows_fault(stub: Stub) -> None:
    stub.refuses = lambda prompt: Fault(429) if prompt == "bad" else None
    with pytest.raises(EndpointError, match="is busy"):
        ask(stub, one("good"), one("bad"), deadline_seconds=0.1)


@pytest.mark.parametrize("most", [1, 5])
def test_so_many_requests_are_open_at_once_and_no_more(stub: Stub, most: int) -> None:
    def slowly(prompt: str, body: dict[str, Any]) -> str:
        time.sleep(0.1)  # long enough that all can begin
        return prompt

    stub.answer = slowly
    ask(stub, *(one() for _ in range(20)), max_concurrent=most)
    assert stub.most_open == most


def test_requests_are_taken_as_there_is_room(stub: Stub) -> None:
    taken = 0

    def many() -> Iterator[tuple[int, SampleRequest]]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield number, one()

    sampler = OpenAISampler(MODEL, OpenAIConfig(base_url=stub.url, max_concurrent=3))
    answers = sampler.stream(many())
    next(answers)
    assert taken <= 6
    sampler.close()


def test_another_name_in_the_answers_is_told(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.models.append("black-box")
    stub.faults = [
        Fault(200, content={"model": name, "choices": [{"message": {"content": "x"}}]}) for name in "aab"
    ]
    ask(stub, *(one() for _ in range(4)), max_concurrent=1, name="black-box")
    told = [line for line in capsys.readouterr().out.splitlines() if "answers as" in line]
    assert [line.rpartition(" ")[2] for line in told] == ["a", "b"]
    assert all(first != second for first, second in pairwise(told))
