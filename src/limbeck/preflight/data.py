"""Checks of data sets by their first bytes (JSONL) or their footer (Parquet)."""

import json
import re
from typing import Any

from limbeck.errors import ConfigError, DataError
from limbeck.preflight.findings import Finding, collected, warning
from limbeck.preflight.places import Place
from limbeck.records import DATA_SUFFIXES

HEAD_BYTES = 256 << 10
MAX_FOOTER_BYTES = 64 << 20
PARQUET = b"PAR1"
TEXT = re.compile(r"(dictionary<values=)?(large_)?string")
FORM = "rows with a text `prompt` and, to measure with, an `answer`"
UNKNOWN = {
    "prompts": "how often the labels are right stays unknown",
    "heldout": "accuracies stay unknown",
}


def check_data(place: Place, *, measures: bool) -> list[Finding]:
    """Check one data set.

    Args:
        place: The file that `prompts` or `heldout` names.
        measures: Whether accuracies are taken on its rows.

    Returns:
        What is wrong with it; rows beyond the first are not looked at.
    """
    findings: list[Finding] = []
    with collected(findings):
        if not place.path.endswith(DATA_SUFFIXES):
            raise ConfigError(
                f"unknown kind of file in `{place.key}`",
                where=place.path,
                expected=", ".join(DATA_SUFFIXES),
                remedy="Convert it, or rename it if it is one of these",
            )
        size = place.size()
        if size == 0:
            raise DataError("the data set is empty", where=place.path, expected=FORM, remedy="Check the file")
        parquet = place.path.endswith(".parquet")
        has_answers = _parquet(place, size) if parquet else _json_lines(place, size, findings)
        if not has_answers:
            unknown = UNKNOWN["heldout" if measures else "prompts"]
            findings.append(
                warning(
                    DataError(
                        f"no `answer`, so {unknown}",
                        where=place.path,
                        remedy="Add the field `answer` where answers are known; training never sees it",
                    )
                )
            )
    return findings


def _json_lines(place: Place, size: int, findings: list[Finding]) -> bool:
    """Check the first rows; gives whether any has an answer.

    Raises:
        DataError: when none of them can be used.
    """
    lines = place.read(0, min(HEAD_BYTES, size)).split(b"\n")
    if size > HEAD_BYTES:
        lines.pop()  # cut in the middle
    rows = [(number, *_row(line)) for number, line in enumerate(lines, 1) if line.strip()]
    broken = [(number, reason) for number, _, reason in rows if reason]
    if len(broken) == len(rows):
        number, reason = broken[0] if broken else (1, f"no line ends within {HEAD_BYTES >> 10} KiB")
        raise DataError(
            "no usable row at the start of the data set",
            where=f"{place.path}, row {number}",
            expected=FORM,
            got=reason,
            remedy="Write one JSON object a line",
        )
    if broken:
        number, reason = broken[0]
        findings.append(
            warning(
                DataError(
                    f"{len(broken)} of the first {len(rows)} rows are broken and will be set aside",
                    where=f"{place.path}, row {number}",
                    expected=FORM,
                    got=reason,
                    remedy="Mend them; above prepare.max_bad_fraction the stage fails",
                )
            )
        )
    return any(row.get("answer") is not None for _, row, _ in rows)


def _row(line: bytes) -> tuple[dict[str, Any], str]:
    """A line as a row, and why it is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}, "not JSON in UTF-8"
    if not isinstance(row, dict):
        return {}, "not an object"
    prompt = row.get("prompt")
    return row, "" if isinstance(prompt, str) and prompt.strip() else "no text in `prompt`"


def _parquet(place: Place, size: int) -> bool:
    """Check rows and columns by the footer; gives whether there are answers.

    Raises:
        DataError: when it is no Parquet file, holds no rows, or no text column `prompt`.
    """
    import pyarrow as pa  # noqa: PLC0415 - a good part of a second, for Parquet alone
    import pyarrow.parquet as pq  # noqa: PLC0415

    tail = place.read(max(0, size - 8), 8)
    length = int.from_bytes(tail[:4], "little")
    if size < 12 or tail[4:] != PARQUET or length > min(size - 8, MAX_FOOTER_BYTES):
        raise DataError("not a Parquet file", where=place.path, got="no footer", remedy="Write it again")
    try:
        footer = pq.ParquetFile(pa.BufferReader(place.read(size - 8 - length, length) + tail))
        schema, num_rows = footer.schema_arrow, footer.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            "not a Parquet file", where=place.path, got=str(error)[:200], remedy="Write it again"
        ) from error
    columns = {field.name: str(field.type) for field in schema}
    if not num_rows or not TEXT.match(columns.get("prompt", "")):
        raise DataError(
            "a data set without prompts",
            where=place.path,
            expected="rows with a text column `prompt`",
            got=f"{num_rows} rows of {', '.join(f'{name} ({kind})' for name, kind in columns.items())[:200]}",
            remedy="Name the column `prompt`, of text",
        )
    return "answer" in columns
