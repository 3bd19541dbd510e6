"""Chat templates: answers begin and end in them, and system prompts reach the model."""

import json
from pathlib import Path

import pytest

from limbeck.config import Chat, ModelConfig
from limbeck.preflight.models import check_model
from limbeck.preflight.places import Place
from limbeck.preflight.templates import check_template
from tests import families, tiny
from tests.families import FAMILIES, SYSTEM
from tests.preflight.conftest import lines


def found(folder: Path, chat: Chat) -> list[str]:
    facts, findings = check_model(Place("student", str(folder), None), ModelConfig(), "config.student")
    assert facts is not None
    assert findings == []
    return lines(check_template(facts, chat))


def as_family(folder: Path, name: str, eos: str | None = None) -> None:
    """Give a checkpoint the template and tokens of a family."""
    tokenizer = families.of_family(FAMILIES[name])
    if eos:
        tokenizer.eos_token = eos
    tokenizer.save_pretrained(folder)
    stop = {"eos_token_id": [tokenizer.convert_tokens_to_ids(FAMILIES[name].ending)]}
    if not eos:
        (folder / "generation_config.json").write_text(json.dumps(stop))


@pytest.mark.parametrize("system_prompt", [None, SYSTEM])
@pytest.mark.parametrize("name", FAMILIES)
def test_published_templates_have_nothing_against_them(
    folder: Path, name: str, system_prompt: str | None
) -> None:
    as_family(folder, name)
    messages = found(folder, Chat(system_prompt, FAMILIES[name].enable_thinking))
    if name == "Gemma 2" and system_prompt:
        (line,) = messages
        assert line.startswith("warning: the chat template takes no system message")
    else:
        assert messages == []


def test_a_base_model_that_stops_elsewhere_is_a_warning(folder: Path) -> None:
    as_family(folder, "Qwen 2.5", eos="<pad>")
    (line,) = found(folder, Chat())
    assert line.startswith("warning: the chat template ends a turn with a token that engines do not stop at")
    assert "'<|im_end|>'" in line


USER = "{% for message in messages if message.role == 'user' %}{{ message.content }} {% endfor %}"
ANSWER = (
    "{% for message in messages if message.role == 'assistant' %}{{ message.content }} <|end|>{% endfor %}"
)
TEMPLATES = {
    "no generation prompt": (
        USER + ANSWER.replace("{{", "bot: {{"),
        [
            "error: a chat template without a generation prompt in ",
            "warning: the chat template takes no system message",
        ],
    ),
    "a system prompt that is dropped": (
        USER + ANSWER,
        ["warning: the chat template takes no system message"],
    ),
    "no Jinja": ("{% for %}", ["error: a chat template that cannot be read in "]),
    "an answer that is dropped": (USER, ["error: a chat template that drops the answer in "]),
    "a refusal": ("{{ raise_exception('no') }}", ["error: a chat template that does not render"]),
    "a mistake": ("{{ 1 / 0 }}", ["error: a chat template that does not render"]),
    "a way out of the sandbox": (
        "{{ ''.__class__.__mro__ }}",
        ["error: a chat template that does not render"],
    ),
    "marks for assistants and JSON": (
        "{% for message in messages %}{% generation %}{{ message.content }} <|end|>{% endgeneration %}"
        "{% if message is not mapping %}{{ message | tojson(indent=2) }}{% break %}{% endif %}{% endfor %}",
        [],
    ),
}


@pytest.mark.parametrize(("template", "messages"), TEMPLATES.values(), ids=TEMPLATES)
def test_each_fault_of_a_template_has_its_line(folder: Path, template: str, messages: list[str]) -> None:
    (folder / "chat_template.jinja").write_text(template)
    got = found(folder, Chat(SYSTEM))
    assert len(got) == len(messages)
    for line, message in zip(got, messages, strict=True):
        assert line.startswith(message)


def test_the_template_in_the_tokenizers_file_is_read_too(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": "{% for %}"}))
    (line,) = found(folder, Chat())
    assert line.startswith("error: a chat template that cannot be read in ")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": tiny.TEMPLATE}))
    assert found(folder, Chat()) == []
