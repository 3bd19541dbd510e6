"""Checks of data sets: by first bytes, a Parquet file by its footer, what a hub has by its files' names."""

import contextlib
import io
import re

from limbeck.config import Config, Preset
from limbeck.errors import ConfigError, DataError
from limbeck.preflight.findings import Finding, collected, warning
from limbeck.preflight.places import Place
from limbeck.presets import FORMS, Aside, check_task
from limbeck.questions import Question, Raw, columns, preset_of, question
from limbeck.records import DATA_SUFFIXES
from limbeck.sources import hub
from limbeck.sources.files import is_data, require_column, text_rows

HEAD_BYTES = 256 << 10
MAX_FOOTER_BYTES = 64 << 20
PARQUET = b"PAR1"
TEXT = re.compile(r"(dictionary<values=)?(large_)?string")
TEXTS = re.compile(r"(large_)?list(_view)?<\w+: (large_)?string")
UNKNOWN = {
    "prompts": "how often the labels are right stays unknown",
    "heldout": "accuracies stay unknown",
}


def check_data(place: Place, config: Config, *, measures: bool, labels: bool = False) -> list[Finding]:
    """Check one data set.

    Args:
        place: What `prompts` or `heldout` names. Of a folder the first file of each kind is looked at.
        config: `prepare` and `task` say how its rows are read.
        measures: Whether accuracies are taken on its rows.
        labels: Whether its answers are the labels of a training: an upper bound.

    Returns:
        What is wrong with it; rows beyond the first are not looked at.
    """
    findings: list[Finding] = []
    preset = preset_of(place.key, config)
    with collected(findings):
        check_task(preset, config.task.kind)
    with collected(findings):
        if hub.is_hub(place.path):
            data = hub.pinned(hub.parse(place.path), config.prepare)
            hub.names(data, config.prepare)
            return findings
        looked = [_look(place, name, preset, config, findings) for name in _files(place)]
        if labels and not any(looked):
            raise DataError(
                f"no `{_answer(preset, config)}`, which the upper bound learns from",
                where=place.path,
                remedy="Add it where answers are known, or run distill",
            )
        if not any(looked) and not _has_no_gold(preset) and not config.task.is_open:
            unknown = UNKNOWN["heldout" if measures else "prompts"]
            findings.append(
                warning(
                    DataError(
                        f"no `{_answer(preset, config)}`, so {unknown}",
                        where=place.path,
                        remedy="Add it where answers are known; training never sees it",
                    )
                )
            )
    return findings


def _files(place: Place) -> list[str]:
    """The names to look at: none for a file itself, else the first of each kind in the folder.

    Raises:
        ConfigError: when no file is of a known kind.
    """
    below = sorted(name for name in place.below() if is_data(name))
    first = [next((name for name in below if name.lower().endswith(kind)), "") for kind in DATA_SUFFIXES]
    if below:
        return [name for name in first if name]
    if is_data(place.path):
        return [""]
    raise ConfigError(
        f"unknown kind of file in `{place.key}`",
        where=place.path,
        expected=f"{', '.join(DATA_SUFFIXES)}, or a folder of them",
        remedy="Convert it, or rename it if it is one of these",
    )


def _look(place: Place, name: str, preset: Preset | None, config: Config, findings: list[Finding]) -> bool:
    """Check one file; gives whether it has answers.

    Raises:
        DataError: when it holds nothing that can be used.
    """
    where = f"{place.path.rstrip('/')}/{name}" if name else place.path
    size = place.size(name)
    if size == 0:
        raise DataError(
            "the data set is empty", where=where, expected=_form(preset, config), remedy="Check the file"
        )
    if where.lower().endswith(".parquet"):
        return _parquet(place, name, where, size, preset, config)
    return _text(place, name, where, size, preset, config, findings)


def _text(
    place: Place,
    name: str,
    where: str,
    size: int,
    preset: Preset | None,
    config: Config,
    findings: list[Finding],
) -> bool:
    """Check the first rows as `prepare` reads them; gives whether any has an answer.

    Raises:
        DataError: when none of them can be used.
    """
    head = place.read(0, min(HEAD_BYTES, size), name)
    rows: list[tuple[int, Raw]] = []
    with contextlib.suppress(DataError) if size > HEAD_BYTES else contextlib.nullcontext():
        rows.extend(text_rows(io.BytesIO(head), where, columns(preset, config)))
    if size > HEAD_BYTES:
        del rows[-1:]  # cut in the middle
    read = [(number, question(raw, preset, config)) for number, raw in rows]
    usable = [found for _, found in read if isinstance(found, Question)]
    broken = [(number, found) for number, found in read if isinstance(found, Aside) and found.is_broken]
    if not usable:
        number, reason = (broken[0][0], broken[0][1].reason) if broken else (1, "no whole row")
        raise DataError(
            "no usable row at the start of the data set",
            where=f"{where}, row {number}",
            expected=_form(preset, config),
            got=reason,
            remedy="Correct the file, or how it is read: prepare.fields, prepare.preset",
        )
    if broken:
        number, first = broken[0]
        findings.append(
            warning(
                DataError(
                    f"{len(broken)} of the first {len(rows)} rows are broken and will be set aside",
                    where=f"{where}, row {number}",
                    expected=_form(preset, config),
                    got=first.reason,
                    remedy="Mend them; above prepare.max_bad_fraction the stage fails",
                )
            )
        )
    return any(found.answer is not None for found in usable)


def _parquet(place: Place, name: str, where: str, size: int, preset: Preset | None, config: Config) -> bool:
    """Check rows and columns by the footer; gives whether there are answers.

    Raises:
        DataError: when it is no Parquet file, holds no rows, or lacks a column, or one of the right type.
    """
    import pyarrow as pa  # noqa: PLC0415 - a good part of a second, for Parquet alone
    import pyarrow.parquet as pq  # noqa: PLC0415

    tail = place.read(max(0, size - 8), 8, name)
    length = int.from_bytes(tail[:4], "little")
    if size < 12 or tail[4:] != PARQUET or length > min(size - 8, MAX_FOOTER_BYTES):
        raise DataError("not a Parquet file", where=where, got="no footer", remedy="Write it again")
    try:
        footer = pq.ParquetFile(pa.BufferReader(place.read(size - 8 - length, length, name) + tail))
        schema, num_rows = footer.schema_arrow, footer.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            "not a Parquet file", where=where, got=str(error)[:200], remedy="Write it again"
        ) from error
    found = {field.name: str(field.type) for field in schema}
    require_column(list(found), columns(preset, config), where)
    asked, options = columns(preset, config)[0], _options(preset, config)
    if not num_rows or not TEXT.match(found[asked]):
        raise DataError(
            "a data set without prompts",
            where=where,
            expected=f"rows with a text column `{asked}`",
            got=f"{num_rows} rows, `{asked}` of {found[asked]}",
            remedy="Write the column as text, or name another in prepare.fields",
        )
    if options in found and not TEXTS.match(found[options]):
        raise DataError(
            "options that are no texts",
            where=where,
            expected=f"a column `{options}`, each a list of texts",
            got=found[options][:200],
            remedy="Write it so, or take it away where the prompts hold their options",
        )
    return _answer(preset, config) in found


def _form(preset: Preset | None, config: Config) -> str:
    """What a usable row is."""
    if preset:
        return f"rows of the preset `{preset}`: {', '.join(FORMS[preset].columns)}"
    asked, answer = columns(None, config)[:2]
    return f"rows with a text `{asked}` and, to measure with, `{answer}`"


def _answer(preset: Preset | None, config: Config) -> str:
    """The column of gold answers; those of presets are all called so."""
    return "answer" if preset else config.prepare.fields.answer


def _options(preset: Preset | None, config: Config) -> str:
    """The column of options; none where no options are asked."""
    if config.task.kind != "choice":
        return ""
    return "options" if preset else config.prepare.fields.options


def _has_no_gold(preset: Preset | None) -> bool:
    """Whether a published data set is known to have no answers."""
    return preset is not None and "answer" not in FORMS[preset].columns
