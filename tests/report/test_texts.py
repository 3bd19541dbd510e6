"""Hostile texts in Markdown, read by a real parser that lets raw HTML pass."""

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from limbeck.report.texts import NAME_CHARS, code, harmless, name, plain, printable

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=http://evil.test/x.png onerror=alert(1)>",
    "![x](http://evil.test/y.png)",
    "[x](javascript:alert(1))",
    "[x]: http://evil.test\n\n[x]",
    "<http://evil.test>",
    "`code`` | cell |",
    "```\nfence\n```",
    "# heading\n\n* item\n\n> quote\n\n---",
    "a\n===\n\n    indented",
    "**bold** _thin_ ~~gone~~ $x$",
    "&lt;script&gt; &#60;b&#62;",
    "ends with a backslash \\",
    "\\` a \\[b](c)",
    "| a | b |\n|---|---|\n| c | d |",
    "\x1b[31m\u202ebackwards\u2028line\x00",
]


def parsed(text: str) -> list[Token]:
    """All tokens, those inside a line too."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    return [part for token in tokens for part in (token, *(token.children or ()))]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_stays_inside_its_code_span(text: str) -> None:
    assert "\\" not in code(text)  # some renderers take it for an escape even there
    for page in (f"before {code(text)} after `x`", f"| a | b |\n|--|--|\n| {code(text)} | `x` |"):
        tokens = parsed(page)
        assert [token.content for token in tokens if token.type == "code_inline"][1:] == ["x"]
        assert {token.type for token in tokens} == {
            token.type for token in parsed(page.replace(code(text), "`x`"))
        }


@pytest.mark.parametrize("text", HOSTILE)
def test_running_text_is_read_as_text(text: str) -> None:
    shown = str(plain(text))
    tokens = parsed(f"# {shown}\n\n**Bold.** {shown}\n")
    assert {token.type for token in tokens} == {
        "heading_open", "heading_close", "paragraph_open", "paragraph_close", "inline", "text",
        "strong_open", "strong_close",
    }  # fmt: skip
    assert sum(token.type == "strong_open" for token in tokens) == 1
    assert "://" not in shown


def test_running_text_reads_as_it_was_written() -> None:
    text = "The policy (ppo_mixed) is 58.9% right: +4.2 points [1.0, 2.0]; see http://x & www.y.z"
    tokens = parsed(str(plain(text)))
    assert "".join(token.content for token in tokens if token.type == "text") == text


def test_what_is_no_text_passes() -> None:
    assert (plain(3), harmless(3)) == (3, 3)
    assert plain(code("a_b")) == "`a_b`"


def test_lines_are_shown_as_one() -> None:
    assert code("a\nb") == "`a ⏎ b`"


def test_names_are_one_short_line() -> None:
    assert name("a\n\tb") == "a b"
    assert name(" ") == "(empty)"
    long = name("first" + "x" * 200 + "last")
    assert len(long) == NAME_CHARS
    assert long.startswith("first")
    assert long.endswith("last")


def test_printable_shows_control_characters_and_cuts() -> None:
    assert printable("a\x00b\u202ec\n\td") == "a\ufffdb\ufffdc\n\td"
    assert printable(" \n") == "(empty)"
    assert printable("x" * 4000) == "x" * 1500 + " … (2,500 more characters)"


def test_harmless_leaves_one_line_without_signs(hostile: str) -> None:
    assert not set("`|<>\n\x1b\\") & set(str(harmless(hostile)))
