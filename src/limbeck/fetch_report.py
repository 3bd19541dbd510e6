"""The finished reports below a work_uri, and how one comes to this machine."""

from datetime import datetime
from itertools import groupby
from pathlib import Path

from pydantic import BaseModel, ValidationError

from limbeck.errors import ConfigError, DataError
from limbeck.manifest import Manifest
from limbeck.status import inspect
from limbeck.status_text import counts
from limbeck.storage import Store

FILES = ("report.html", "report.md", "report.json")
LABEL_FILES = ("labels.html", "labels.json")
"""Only where the run made or took labels."""


class Verdict(BaseModel):
    """The part of report.json that is said on the terminal."""

    headline: str
    reason: str


class _Report(BaseModel):
    decision: Verdict


def newest_report(store: Store, work_uri: str) -> tuple[Manifest, datetime]:
    """The newest report that is complete, and when it was written.

    Raises:
        DataError: when there is none, saying what the stages have done.
    """
    for state in inspect(store, work_uri, "report").stages:
        if state.state == "complete" and state.manifest:
            return state.manifest, state.modified
    by_stage = groupby(inspect(store, work_uri).stages, lambda state: state.stage)
    there = ", ".join(f"{stage} ({counts(states)})" for stage, states in by_stage)
    raise DataError(
        "no finished report",
        where=work_uri,
        got=there or "nothing that a stage has written",
        remedy="Correct the address, or let the run end: `limbeck status` shows how far it is",
    )


def fetch_report(store: Store, report: Manifest, out: Path) -> Verdict:
    """Download a report: page, text and JSON, and the label report; each is checked against its sha256.

    Args:
        store: Where from.
        report: Its manifest.
        out: The folder; files of an earlier report there are replaced.

    Raises:
        ConfigError: when the folder cannot be made or written to.
        DataError: when files are missing from it, or it holds no decision.
        StorageError: when a file is corrupt or gone.
    """
    items = {item.uri.rpartition("/")[2]: item for item in report.objects if item.sha256}
    missing = [name for name in FILES if name not in items]
    if missing:
        raise DataError(
            "a report without all of its files",
            where=report.uri,
            expected=f"{', '.join(FILES)}, each with its sha256",
            got=f"no {missing[0]}",
            remedy="Run the stage `report` again",
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in FILES + LABEL_FILES:
            if name in items:
                store.read_file(items[name], out / name)
    except OSError as error:
        raise ConfigError("cannot write the report", where=f"--out {out}", got=str(error)) from error
    try:
        return _Report.model_validate_json((out / "report.json").read_bytes()).decision
    except ValidationError as error:
        raise DataError(
            "a report.json without a decision",
            where=items["report.json"].uri,
            got=error.errors()[0]["msg"],
            remedy="Run the stage `report` again",
        ) from error
