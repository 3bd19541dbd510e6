"""Checks of chat templates: they begin an answer, end it where engines stop, and show the system prompt.

A template is rendered as transformers renders it (source: transformers 5.19, utils/chat_template_utils.py,
`_cached_compile_jinja_template`): in jinja2's sandbox, which gives it no way out of itself.
"""

import json
from collections.abc import Sequence
from typing import Any

import jinja2.ext
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from limbeck import chat as chats
from limbeck.config import Chat
from limbeck.errors import ConfigError, DataError
from limbeck.preflight.findings import Finding, collected, warning
from limbeck.preflight.models import ModelFacts

SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


def check_template(facts: ModelFacts, chat: Chat) -> list[Finding]:
    """What a model's chat template does with this run's questions and answers."""
    findings: list[Finding] = []
    if facts.template is None:
        return findings
    with collected(findings):
        template = _compiled(facts, facts.template, chat)
        turn = chats.turn(template, chat)
        findings += _generation_prompt(facts, template, chat)
        findings += _system_prompt(facts, template, chat)
        findings += _ending(facts, turn.ending)
    return findings


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks what an assistant says; what is in it is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _compiled(facts: ModelFacts, source: str, chat: Chat) -> chats.Template:
    """The template of a file.

    Raises:
        DataError: when it is no template.
    """

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def as_json(value: object, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = as_json
    environment.globals["raise_exception"] = refuse
    try:
        compiled = environment.from_string(source)
    except TemplateError as error:
        raise DataError(
            "a chat template that cannot be read",
            where=facts.place.path,
            expected="a Jinja template",
            got=f"{type(error).__name__}: {error}"[:200],
            remedy="Copy it again",
        ) from error
    special = {name: token for name in SPECIAL if (token := _token(facts, name))}

    def render(messages: Sequence[chats.Message], *, generation_prompt: bool) -> str:
        return compiled.render(
            messages=list(messages),
            add_generation_prompt=generation_prompt,
            **special,
            **chats.options(chat),
        )

    return render


def _token(facts: ModelFacts, name: str) -> str | None:
    """A special token by its name, which may be written in two ways."""
    token = facts.tokenizer_config.get(name)
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def _generation_prompt(facts: ModelFacts, template: chats.Template, chat: Chat) -> list[Finding]:
    """The prompt ends where an answer begins: else the model would have to write its own header first."""
    asked = chats.messages(template, chat, "?")
    prompt, unasked = (chats.render(template, asked, generation_prompt=wanted) for wanted in (True, False))
    whole = chats.render(template, chats.answered(asked), generation_prompt=False)
    before = whole.rpartition(chats.PROBE)[0]
    missing = before.removeprefix(prompt) if before.startswith(prompt) else ""
    if prompt != unasked or not missing.strip():
        return []
    error = DataError(
        "a chat template without a generation prompt",
        where=facts.place.path,
        expected=f"{missing!r} at the end when add_generation_prompt is set",
        got=repr(prompt[-40:]),
        remedy="Add {% if add_generation_prompt %} to the template",
    )
    return [Finding(error)]


def _system_prompt(facts: ModelFacts, template: chats.Template, chat: Chat) -> list[Finding]:
    """A system message reaches the model as one."""
    if not chat.system_prompt or chats.takes_system_prompt(template, chat.system_prompt):
        return []
    error = ConfigError(
        "the chat template takes no system message, so the system prompt opens the user's message",
        where=f"config.task.system_prompt for {facts.place.path}",
        remedy="Nothing needs to be done; or put it into task.prompt_template",
    )
    return [warning(error)]


def _ending(facts: ModelFacts, ending: str) -> list[Finding]:
    """An engine stops where the template ends a turn."""
    end = ending.strip() or _token(facts, "eos_token")
    stops = facts.generation.get("eos_token_id", facts.architecture.eos_token_id)
    ids = set(stops) if isinstance(stops, list) else {stops}
    if end is None or end == _token(facts, "eos_token") or _id(facts, end) in ids - {None}:
        return []
    error = DataError(
        "the chat template ends a turn with a token that engines do not stop at",
        where=facts.place.path,
        expected="eos_token_id of generation_config.json to name it",
        got=f"{end[:40]!r}, and {sorted(map(str, ids))}",
        remedy="Add its id there: completions run on to max_tokens otherwise. What sft trains stops there",
    )
    return [warning(error)]


def _id(facts: ModelFacts, text: str) -> int | None:
    """The id of a token that was added to a vocabulary."""
    added = (facts.tokenizer or {}).get("added_tokens")
    found = [
        item["id"]
        for item in (added if isinstance(added, list) else [])
        if isinstance(item, dict) and item.get("content") == text and isinstance(item.get("id"), int)
    ]
    return found[0] if found else None
