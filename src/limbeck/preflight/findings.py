"""What preflight finds: an error of the tree for each, all collected before anything stops."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from limbeck.errors import LimbeckError
from limbeck.progress import say


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. Its message says what, where, expected, got and what to do."""

    error: LimbeckError
    severity: Literal["error", "warning"] = "error"
    """An error stops the run; a warning works, or may work, and costs something."""

    def __str__(self) -> str:
        """The line."""
        return f"{self.severity}: {self.error}"


def warning(error: LimbeckError) -> Finding:
    """A finding that does not stop the run."""
    return Finding(error, "warning")


@contextmanager
def collected(findings: list[Finding]) -> Iterator[None]:
    """Make an error of the block a finding; what comes after the block goes on."""
    try:
        yield
    except LimbeckError as error:
        findings.append(Finding(error))


def count(findings: Sequence[Finding]) -> str:
    """How many of either kind: `2 errors, 1 warning`."""
    found = Counter(finding.severity for finding in findings)
    return ", ".join(f"{number} {kind}{'s' * (number > 1)}" for kind, number in sorted(found.items()))


def conclude(findings: Sequence[Finding], checked: Sequence[str]) -> None:
    """Say every finding and, when none is an error, what was checked.

    Raises:
        LimbeckError: of the first error's class, when there is one.
    """
    errors = [finding for finding in findings if finding.severity == "error"]
    for finding in [*errors, *(finding for finding in findings if finding.severity == "warning")]:
        say(f"preflight: {finding}")
    if errors:
        raise type(errors[0].error)(
            f"preflight found {count(findings)}",
            remedy="Each has a line above and its remedy; mend them and run again, nothing was started",
        )
    say(f"preflight: nothing stands against it; checked: {'; '.join(checked)}")
