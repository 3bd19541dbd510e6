"""The process that compares formulas for `limbeck.comparing`: one JSON value a line, in and out.

    in   [LEFT, RIGHT], two answers in their normal forms
    out  first "ready"; then true or false for each pair

It may hang in a comparison or fill its memory: who asks it kills it then, and memory has a limit. It ends
when its input ends, or its parent.
"""

import json
import logging
import os
import resource
import sys
from typing import IO, Any

from limbeck.processes import die_with


def main(pairs: IO[bytes], answers: IO[bytes], memory_bytes: int) -> None:
    """Compare until the input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _same("x^2", "x x")  # loads and compiles what the first comparison would wait for
    _say(answers, "ready")
    for line in pairs:
        _say(answers, _same(*json.loads(line)))


def _same(left: str, right: str) -> bool:
    """Whether math-verify takes one for the other; it is not symmetric, so it is asked both ways."""
    from math_verify import verify  # noqa: PLC0415 - after the memory has its limit

    try:
        one, other = _parsed(left), _parsed(right)
        # Its own time limits are signals' and do not end what hangs in C.
        return any(verify(*pair, timeout_seconds=None) for pair in ((one, other), (other, one)))
    except (ArithmeticError, MemoryError, RecursionError, ValueError):
        return False


def _parsed(formula: str) -> list[Any]:
    """What math-verify reads in a formula; empty when it reads nothing."""
    from math_verify import LatexExtractionConfig, parse  # noqa: PLC0415

    config = [LatexExtractionConfig(boxed_match_priority=0)]
    found: list[Any] = parse(
        f"\\boxed{{{formula}}}", config, fallback_mode="no_fallback", parsing_timeout=None
    )
    return found


def _say(answers: IO[bytes], value: object) -> None:
    answers.write(json.dumps(value).encode() + b"\n")
    answers.flush()


if __name__ == "__main__":
    die_with(int(sys.argv[1]))
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what is printed on stdout would mix with the answers
    logging.disable(logging.CRITICAL)  # math-verify warns that its time limits are off
    main(sys.stdin.buffer, channel, memory_bytes=int(sys.argv[2]))
