"""`limbeck lint`: what the API server would refuse of a compiled pipeline, and our own rules, all at once."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from limbeck.apiserver import Finding, argument_refusals, read_documents, upload_refusals
from limbeck.compiled import Compiled, documents, read
from limbeck.lint_rules import RULES, secrets_in_arguments


def lint(path: Path, arguments: Mapping[str, Any] | None = None, *, strict: bool = False) -> list[Finding]:
    """Check a compiled pipeline, and the arguments of a run if there are some.

    Args:
        path: The YAML.
        arguments: Values by parameter; none leaves arguments unchecked.
        strict: Makes every warning an error, as a release wants it.

    Returns:
        Findings, errors first; the same finding of several tasks is one.

    Raises:
        ConfigError: when the file cannot be read or is not YAML.
    """
    compiled, findings = inspect(path)
    if compiled is not None and arguments is not None:
        findings += inspect_arguments(compiled, arguments)
    if strict:
        findings = [replace(finding, severity="error") for finding in findings]
    return together(findings)


def inspect(path: Path) -> tuple[Compiled | None, list[Finding]]:
    """The pipeline, none if its shape is unknown, and all findings.

    Raises:
        ConfigError: when the file cannot be read or is not YAML.
    """
    compiled, findings = read_documents(documents(read(path), str(path)))
    if compiled is not None:
        findings += upload_refusals(compiled)
        for rule in RULES:
            findings += rule(compiled)
    return compiled, findings


def inspect_arguments(compiled: Compiled, arguments: Mapping[str, Any]) -> list[Finding]:
    """Findings about the arguments of a run."""
    return [
        *argument_refusals(compiled, arguments),
        *secrets_in_arguments(compiled, arguments),
    ]


def together(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first, and one finding where several places have the same."""
    places: dict[Finding, list[str]] = {}
    for finding in findings:
        places.setdefault(replace(finding, where=""), []).append(finding.where)
    merged = [replace(finding, where=", ".join(dict.fromkeys(where))) for finding, where in places.items()]
    return sorted(merged, key=lambda finding: finding.severity != "error")
