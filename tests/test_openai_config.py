"""Settings of a black-box teacher: what does not go together is refused before anything starts."""

from typing import Any

import pytest

from limbeck.config import parse_config
from limbeck.errors import ConfigError
from limbeck.resources import DEFAULTS, parse_resources, requests

BLACK_BOX: dict[str, Any] = {
    "teacher": {"sampler": "openai"},
    "openai": {"base_url": "https://host.example/v1"},
}

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no address": ({"teacher": {"sampler": "openai"}}, "openai.base_url must name the server"),
    "a reward model of weights that nobody has": (
        {**BLACK_BOX, "reward": {"init": "teacher"}},
        "reward.init must be `student`",
    ),
    "a student that is a black box": (
        {"student": {"sampler": "openai"}},
        "unknown setting `student.sampler`",
    ),
    "an address of nothing": ({"openai": {"base_url": "host.example/v1"}}, "must be an address"),
    "a file": ({"openai": {"base_url": "file:///etc/passwd"}}, "must be an address"),
    "a query, where keys are": ({"openai": {"base_url": "https://host/v1?key=1"}}, "without a key"),
    "a key": ({"openai": {"api_key": "x"}}, "unknown setting `openai.api_key`"),
    "one price": ({"openai": {"prompt_price": 1}}, "both `prompt_price` and `completion_price`"),
    "prices of unknown source": (
        {"openai": {"prompt_price": 1, "completion_price": 2}},
        "`price_source` where the prices come from",
    ),
    "more log-probabilities than servers give": (
        {"openai": {"top_logprobs": 21}},
        "less than or equal to 20",
    ),
}


@pytest.mark.parametrize(("values", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(values)


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config({"openai": {"base_url": "https://user:pass-word@host.example/v1"}})
    assert "pass-word" not in str(raised.value)


def test_an_address_is_the_same_with_and_without_a_slash_at_its_end() -> None:
    with_slash = parse_config({**BLACK_BOX, "openai": {"base_url": "https://host.example/v1/"}})
    assert with_slash == parse_config(BLACK_BOX)


def test_a_black_box_asks_for_no_gpu_and_little_memory_where_the_teacher_answers_alone() -> None:
    asked = requests(parse_resources({"evaluate": {"cpu": "3", "gpus": 2}}), 1, black_box=True)
    of_teacher = [asked[name] for name in ("generate_teacher", "judge", "evaluate_teacher")]
    assert [request.gpus for request in of_teacher] == [0, 0, 0]
    assert [request.cpu for request in of_teacher] == ["2", "2", "3"]
    assert [asked[name].gpus for name in ("generate", "sft", "evaluate")] == [1, 1, 2]
    with pytest.raises(ConfigError, match=r"this stage uses no GPU in resources\.judge\.gpus"):
        requests(parse_resources({"judge": {"gpus": 1}}), 1, black_box=True)


def test_a_teacher_that_is_loaded_asks_for_what_its_stage_asks_for() -> None:
    asked = requests(parse_resources({"generate": {"gpus": 2}}), 1)
    assert asked["generate_teacher"] == asked["generate"]
    assert asked["evaluate_teacher"] == asked["evaluate"] == DEFAULTS["evaluate"]
    assert asked["judge"].gpus == 1
