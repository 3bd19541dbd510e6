"""One row of a data set as a question: its prompt, and apart from it the gold answer, or why it is none."""

import contextlib
import json
import random
from typing import Any, NamedTuple

from limbeck.answers.choice import LETTERS, letter_of, with_options
from limbeck.config import Config, FieldsConfig, Preset
from limbeck.presets import FORMS, Aside, Cells
from limbeck.records import row_id

MAX_LINE_BYTES = 16 << 20
"""Longer lines are set aside: one without an end would fill the memory."""


class Unread(NamedTuple):
    """A row that its file's format cannot tell the columns of."""

    reason: str
    text: str


Raw = bytes | dict[str, Any] | Unread
"""A row as it lies there: JSON that is still to be read, or values by column."""


class Question(NamedTuple):
    """A prompt with its gold answer, if any, before they part."""

    prompt_id: str
    prompt: str
    answer: str | None


def preset_of(side: str, config: Config) -> Preset | None:
    """How the rows of a side, `prompts` or `heldout`, are read."""
    own = config.prepare.heldout_preset if side == "heldout" else None
    return own or config.prepare.preset


def columns(preset: Preset | None, config: Config) -> tuple[str, ...]:
    """What is read of files that have columns; the first is what is asked."""
    if preset:
        return FORMS[preset].columns
    fields = config.prepare.fields
    own = (fields.prompt, fields.answer, fields.options)
    return own if config.task.kind == "choice" else own[:2]


def question(raw: Raw, preset: Preset | None, config: Config) -> Question | Aside:
    """One row as a question.

    Args:
        raw: The row.
        preset: The published form that it has; None reads the columns of `prepare.fields`.
        config: `prepare.max_prompt_chars`, `task.kind`, `task.shuffle_options` and the seed are read too.
    """
    value = _value(raw)
    if isinstance(value, Aside):
        return value
    cells = FORMS[preset].cells(value) if preset else _own(value, config.prepare.fields)
    if isinstance(cells, Aside):
        return cells
    prompt, answer = cells.prompt, cells.answer
    if prompt is None:
        return Aside("prompt missing")
    if not isinstance(prompt, str):
        return Aside("prompt not a text")
    prompt = prompt.strip()
    if not prompt:
        return Aside("prompt empty")
    if len(prompt) > config.prepare.max_prompt_chars:
        return Aside("prompt too long")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float | None):
        return Aside("answer not a text or number")
    if not _is_unicode(prompt) or (isinstance(answer, str) and not _is_unicode(answer)):
        return Aside("half a surrogate pair")
    answer = None if answer is None else str(answer)
    if config.task.kind == "choice" and cells.options is not None:
        return _choice(prompt, answer, cells.options, config)
    return Question(row_id(prompt), prompt, answer)


def _value(raw: Raw) -> dict[str, Any] | Aside:
    """A row by column."""
    if isinstance(raw, Unread):
        return Aside(raw.reason)
    if isinstance(raw, dict):
        return raw
    if len(raw) > MAX_LINE_BYTES:
        return Aside("line too long")
    try:
        value = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError:
        return Aside("not UTF-8")
    except (ValueError, RecursionError):  # ValueError: also an integer of thousands of digits
        return Aside("not JSON")
    return value if isinstance(value, dict) else Aside("not an object")


def _own(row: dict[str, Any], fields: FieldsConfig) -> Cells:
    """A row of somebody's own columns; a cell of CSV holds options as a JSON list."""
    options = row.get(fields.options)
    if isinstance(options, str):
        with contextlib.suppress(ValueError, RecursionError):
            options = json.loads(options)
    return Cells(row.get(fields.prompt), row.get(fields.answer), options)


def _choice(prompt: str, answer: str | None, options: object, config: Config) -> Question | Aside:
    """A question with its options below it and the letter of its gold answer.

    Options are sorted before they are shuffled, so a question that stands twice in the data, with its options
    in two orders, becomes one prompt.
    """
    if not isinstance(options, list) or not all(isinstance(item, str) for item in options):
        return Aside("options not a list of texts")
    texts = [" ".join(item.split()) for item in options]
    if not 2 <= len(texts) <= len(LETTERS):
        return Aside(f"not 2 to {len(LETTERS)} options")
    if not all(texts) or len(set(texts)) < len(texts):
        return Aside("an option empty or repeated")
    if not all(map(_is_unicode, texts)):
        return Aside("half a surrogate pair")
    place = None if answer is None else letter_of(answer, texts)
    if answer is not None and place is None:
        return Aside("answer not among the options")
    shown = texts
    if config.task.shuffle_options:
        shown = sorted(texts)
        random.Random(row_id(config.seed, "options", prompt, *shown)).shuffle(shown)  # noqa: S311 - no secret
    letter = None if place is None else LETTERS[shown.index(texts[place])]
    prompt = with_options(prompt, shown)
    if len(prompt) > config.prepare.max_prompt_chars:
        return Aside("prompt too long")
    return Question(row_id(prompt), prompt, letter)


def _is_unicode(text: str) -> bool:
    """Whether a text can be encoded; JSON may spell out lone halves of surrogate pairs, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
