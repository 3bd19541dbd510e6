"""Texts that models, data sets and manifests hold, made fit for a page.

HTML: Jinja escapes every value; here only what cannot be seen is made visible. Markdown has no such
escape, so a text either stands in a code span of its own (`code`), where nothing has a meaning, or every
sign that could have one is defused (`plain`).
"""

import re

from markupsafe import Markup

SHOWN_CHARS = 1500
NAME_CHARS = 60
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters, and those that turn the direction of the text around them."""
HARMLESS = str.maketrans({"`": "ˋ", "|": "¦", "<": "‹", ">": "›", "\\": "⧵"})  # noqa: RUF001 (look-alikes on purpose)
"""What ends a code span or a table cell, begins a tag, or escapes what follows it."""
MARKS = re.compile(r"[*_\[\]#~&@$!{}]|(?<=:)//|(?<=www)\.", re.IGNORECASE)
"""Emphasis, links, images, headings, entities, mentions, formulas, and addresses that become links."""


def printable(text: str) -> str:
    """A text with every character visible, cut to what a page needs; never empty."""
    if not text.strip():
        return "(empty)"
    hidden = len(text) - SHOWN_CHARS
    ending = f" … ({hidden:,} more characters)" if hidden > 0 else ""
    return UNPRINTABLE.sub("\ufffd", text[:SHOWN_CHARS]) + ending


def name(text: str) -> str:
    """A name on one line; of a long one both ends."""
    shown = " ".join(printable(text).split())
    half = NAME_CHARS // 2
    return shown if len(shown) <= NAME_CHARS else f"{shown[: half - 1]}…{shown[-half:]}"


def harmless(value: object) -> object:
    """A value for a Markdown code span: one line that ends no code span or table cell and begins no tag."""
    if not isinstance(value, str):
        return value
    text = UNPRINTABLE.sub("\ufffd", value.replace("\n", " ⏎ "))
    return " ".join(text.translate(HARMLESS).split())


def code(text: str) -> Markup:
    """A text as a Markdown code span, in which nothing is read as Markdown."""
    return Markup(f"`{harmless(printable(text))}`")  # noqa: S704 - this is the escape


def plain(value: object) -> object:
    """A value for running Markdown: what `code` made as it is, of all else every sign of Markdown defused."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return MARKS.sub(lambda match: "".join(f"\\{sign}" for sign in match[0]), str(harmless(value)))
