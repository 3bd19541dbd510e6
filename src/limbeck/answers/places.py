r"""Where answers of all kinds stand in a completion: in the last box, after `####`, after "the answer is"."""

import re
from collections.abc import Iterator

BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:(\{)|(\w)|$)|\\b(?:ox?|oxe)?$")
HASHES = re.compile(r"####[ \t]*([^\n]*)")
ANSWER = re.compile(
    r"\b(?:answers?|solution)\b(?![ ]+(?:choices?|options?)\b[ ]*:)"
    r"[^.\n:=]{0,80}?(?:\b(?:is|are|equals|(?:should|must|would|will|to) be)\b|:|=)[\s:*_]*",
    re.IGNORECASE,
)
REFUSAL = re.compile(
    r"\b(?:(?:i|we)(?:'m| am| are)? (?:can(?:not|'t| not)|could(?: not|n't)|do(?: not|n't) know"
    r"|unable|not able|not sure)"
    r"|i(?:'m| am) sorry|as an ai\b|(?:can ?not|can't|could not) be (?:determined|answered|known|solved)"
    r"|(?:not enough|insufficient) (?:information|data|details)|no way to (?:know|tell|determine)"
    r"|impossible to (?:know|tell|determine|say))",
    re.IGNORECASE,
)
UNKNOWN = re.compile(
    r"(?:(?:currently )?(?:unknown|unclear|undetermined|uncertain)"
    r"|not (?:known|clear|given|certain|provided|sure)"
    r"|n/?a|\?+|\.+|…|_+|impossible to .*|(?:can ?not|can't|could not) be .*)",
    re.IGNORECASE,
)
"""What stands in place of an answer."""


def last_box(text: str) -> str | None:
    r"""What the last `\boxed{...}` holds; empty when it holds nothing or was cut off; None without one."""
    found = _last(BOX, text)
    if found is None:
        return None
    if not found.group(1):
        return found.group(2) or ""
    depth, place = 1, found.end()
    while place < len(text):
        match text[place]:
            case "\\":  # \{ and \} are signs, not braces
                place += 1
            case "{":
                depth += 1
            case "}":
                depth -= 1
        if depth == 0:
            return text[found.end() : place].strip()
        place += 1
    return ""


def after_hashes(text: str) -> str | None:
    """The rest of the last line with `####` before it; empty when it was cut off there; None without one."""
    found = _last(HASHES, text)
    return None if found is None else found.group(1).strip()


def after_answer(text: str) -> Iterator[str]:
    """What follows "the answer is", the last one first, each up to the end of the completion."""
    yield from (text[match.end() :] for match in reversed(list(ANSWER.finditer(text))))


def refuses(text: str) -> bool:
    """Whether the last two lines of a completion say that there is no answer to give."""
    lines = [line for line in text.splitlines() if line.strip()]
    return REFUSAL.search(" ".join(lines[-2:]).replace("\u2019", "'")) is not None


def is_unknown(answer: str) -> bool:
    """Whether an answer is none: "unknown", "not given", "?"."""
    return UNKNOWN.fullmatch(answer.strip(" .*_$\"'")) is not None


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last match."""
    return next(reversed(list(pattern.finditer(text))), None)
