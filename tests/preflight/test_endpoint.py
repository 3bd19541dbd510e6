"""What preflight says of a black-box teacher: its server, its key, its name; and no GPU for it."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from limbeck.config import OpenAIConfig
from limbeck.preflight import Asked, check
from limbeck.preflight.endpoint import check_server
from tests import openai_stub
from tests.openai_stub import MODEL, Fault, Stub
from tests.preflight.conftest import lines, with_settings

KEY = "sk-a-key-of-the-tests-0123456789"


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with openai_stub.serve() as server:
        server.key = KEY
        yield server


def found(stub: Stub, name: str = MODEL) -> list[str]:
    return lines(check_server(name, OpenAIConfig(base_url=stub.url), []))


def test_a_server_that_knows_the_model_has_nothing_against_it(stub: Stub) -> None:
    checked: list[str] = []
    assert not check_server(MODEL, OpenAIConfig(base_url=stub.url), checked)
    assert checked == [f"{stub.url} answers and has {MODEL}"]


def test_a_name_that_is_not_listed_is_an_error_with_those_that_are_near(stub: Stub) -> None:
    (line,) = found(stub, "black-box-2026-01-02")
    assert line.startswith("error: the teacher's server does not know the model in parameter teacher")
    assert f"expected {MODEL}, got black-box-2026-01-02" in line


@pytest.mark.parametrize("key", ["", "sk-another-key-0123456789abcdef"])
def test_a_key_that_is_wrong_or_missing_is_an_error_that_does_not_repeat_it(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    (line,) = found(stub)
    assert line.startswith("error: the teacher's server refuses the key")
    assert ("no OPENAI_API_KEY" in line) == (not key)
    assert not key or key not in line


LISTS: dict[str, tuple[Fault, str]] = {
    "none": (Fault(404), "warning: the teacher's name was not checked, as its server lists no models"),
    "another form": (Fault(200, content={"models": []}), "warning: the teacher's name was not checked"),
    "busy": (Fault(503), "warning: the teacher's name was not checked, as its server is busy or broken"),
    "elsewhere": (
        Fault(302, {"Location": "http://127.0.0.1:9/"}),
        "warning: the teacher's name was not checked, as its server is busy or broken",
    ),
}


@pytest.mark.parametrize(("fault", "message"), LISTS.values(), ids=LISTS)
def test_a_list_that_cannot_be_had_is_a_warning(stub: Stub, fault: Fault, message: str) -> None:
    stub.list_fault = fault
    (line,) = found(stub)
    assert line.startswith(message)


def test_a_server_that_is_not_there_is_an_error() -> None:
    (line,) = lines(check_server(MODEL, OpenAIConfig(base_url="http://127.0.0.1:9/v1"), []))
    assert line.startswith("error: the teacher's server does not answer in http://127.0.0.1:9/v1")
    assert "ConnectionRefusedError" in line


def black_box(asked: Asked, stub: Stub, **sections: dict[str, Any]) -> Asked:
    """The same run with a teacher at a server."""
    run = replace(asked, teacher=MODEL)
    return with_settings(run, teacher={"sampler": "openai"}, openai={"base_url": stub.url}, **sections)


def test_nothing_stands_against_a_run_with_a_black_box(asked: Asked, stub: Stub) -> None:
    outcome = check(black_box(asked, stub))
    assert not [line for line in lines(outcome.findings) if "error" in line]
    assert f"{stub.url} answers and has {MODEL}" in outcome.checked


def test_a_reward_model_from_the_weights_of_a_black_box_is_refused(asked: Asked, stub: Stub) -> None:
    found = lines(check(black_box(asked, stub, reward={"init": "teacher", "max_length": 64})).findings)
    assert any("reward.init must be `student` where teacher.sampler is `openai`" in line for line in found)
    assert not any("folder" in line for line in found), "the name is not taken for a folder"


@pytest.mark.parametrize(
    ("rewards", "is_asked"), [(["model"], False), (["model", "judge"], True)], ids=["no judge", "a judge"]
)
def test_the_server_is_looked_at_where_the_teacher_only_judges_rollouts(
    asked: Asked, stub: Stub, rewards: list[str], is_asked: bool
) -> None:
    run = replace(black_box(asked, stub), stages=["ppo"], ppo_rewards=rewards)
    assert (f"{stub.url} answers and has {MODEL}" in check(run).checked) == is_asked
