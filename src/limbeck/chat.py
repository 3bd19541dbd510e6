"""How a question and its answer look in a model's chat template: one way for sampling and for training.

A template is a function from messages to text, so that nothing heavy is imported: engines and trainers take
the tokenizer's (`of_tokenizer`), preflight renders the file alone.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol

from jinja2 import TemplateError

from limbeck.config import Chat
from limbeck.errors import DataError

Message = dict[str, str]
TODAY = datetime(2024, 7, 26)
"""What templates are told when they ask for the date: else a run that goes on tomorrow would ask other
prompts. Source: the date that Llama 3.1's template falls back to."""
KEPT_PROMPTS = 4096
"""How many prompts' ids are kept in reinforcement learning, which asks each again and again."""
PROBE = "limbeck"
"""The answer by which `turn` finds out what surrounds one."""
BROKEN = (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)
"""What a template raises that refuses its messages, or is wrong."""


class Template(Protocol):
    """A chat template, as it renders messages."""

    def __call__(self, messages: Sequence[Message], *, generation_prompt: bool) -> str:
        """The text of some messages, and of the beginning of an answer if wanted."""


class Turn(NamedTuple):
    """What a template puts around an answer."""

    opening: str
    """White space between prompt and answer: Mistral's templates have one, most have none."""
    ending: str
    """What ends an answer, most often one special token; empty when the template ends none."""


def options(chat: Chat) -> dict[str, Any]:
    """The variables that a template may look at, besides messages."""
    thinking = {} if chat.enable_thinking is None else {"enable_thinking": chat.enable_thinking}
    return {"strftime_now": TODAY.strftime, **thinking}


def of_tokenizer(tokenizer: Any, chat: Chat) -> Template:
    """The template of a transformers tokenizer."""

    def rendered(messages: Sequence[Message], *, generation_prompt: bool) -> str:
        text: str = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=generation_prompt, **options(chat)
        )
        return text

    return rendered


def takes_system_prompt(template: Template, system_prompt: str) -> bool:
    """Whether a template shows a system message: Gemma 2's refuses it, others drop it without a word."""
    asked = [_message("system", system_prompt), _message("user", "?")]
    try:
        return system_prompt.strip() in template(asked, generation_prompt=True)
    except BROKEN:
        return False


def messages(template: Template, chat: Chat, user_message: str) -> list[Message]:
    """The messages of a question; a system prompt that the template does not take opens the user's."""
    if not chat.system_prompt:
        return [_message("user", user_message)]
    if takes_system_prompt(template, chat.system_prompt):
        return [_message("system", chat.system_prompt), _message("user", user_message)]
    return [_message("user", f"{chat.system_prompt}\n\n{user_message}")]


def prompt_text(template: Template, chat: Chat, user_message: str) -> str:
    """A question in the chat template, up to where the answer begins.

    Raises:
        DataError: when the template does not render it.
    """
    return render(template, messages(template, chat, user_message), generation_prompt=True)


def prompt_ids(tokenizer: Any, chat: Chat, user_message: str) -> list[int]:
    """Its token ids: what engines sample from, and what a completion is trained to follow.

    Raises:
        DataError: when the template does not render it.
    """
    text = prompt_text(of_tokenizer(tokenizer, chat), chat, user_message)
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def asking(tokenizer: Any, chat: Chat) -> Callable[[str], list[int]]:
    """`prompt_ids` of one model, which keeps those that were asked for last; nobody may change them."""
    return lru_cache(KEPT_PROMPTS)(partial(prompt_ids, tokenizer, chat))


def turn(template: Template, chat: Chat) -> Turn:
    """What the template puts around an answer, read off an answer that it renders.

    What it shows between prompt and answer in a finished conversation alone, such as the empty thinking of
    Qwen3, is not sampled by the engine and is no part of it.

    Raises:
        DataError: when the template does not render an answer.
    """
    asked = messages(template, chat, "?")
    prompt = render(template, asked, generation_prompt=True)
    whole = render(template, answered(asked), generation_prompt=False)
    before, found, after = whole.rpartition(PROBE)
    if not found:
        raise DataError(
            "a chat template that drops the answer",
            where="chat_template",
            got=repr(whole)[-80:],
            remedy="Mend the template: it must show messages of the role assistant",
        )
    between = before.removeprefix(prompt) if before.startswith(prompt) else ""
    return Turn(between if between.isspace() else "", after.rstrip())


def answered(asked: Sequence[Message]) -> list[Message]:
    """A question with an answer that is easily found again."""
    return [*asked, _message("assistant", PROBE)]


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def render(template: Template, asked: Sequence[Message], *, generation_prompt: bool) -> str:
    """The text of some messages.

    Raises:
        DataError: when the template refuses them, or is broken.
    """
    try:
        return template(asked, generation_prompt=generation_prompt)
    except BROKEN as error:
        raise DataError(
            "a chat template that does not render a question and its answer",
            where="chat_template",
            expected="messages of the roles user and assistant",
            got=f"{type(error).__name__}: {error}"[:200],
            remedy="Take another instruction-tuned model, or mend the template",
        ) from error
