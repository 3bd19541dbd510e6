"""The finished reports below a work_uri, and how one comes to this machine."""

from itertools import groupby
from pathlib import Path

from pydantic import BaseModel, ValidationError

from limbeck.errors import ConfigError, DataError
from limbeck.status import StageState, inspect
from limbeck.status_text import counts
from limbeck.storage import Store

FILES = ("report.html", "report.md", "report.json")


class Verdict(BaseModel):
    """The part of report.json that is said on the terminal."""

    headline: str
    reason: str


class _Report(BaseModel):
    decision: Verdict


def newest_report(store: Store, work_uri: str) -> StageState:
    """The newest report that is complete.

    Raises:
        DataError: when there is none, saying what the stages have done.
    """
    for state in inspect(store, work_uri, "report").stages:
        if state.state == "complete":
            return state
    by_stage = groupby(inspect(store, work_uri).stages, lambda state: state.stage)
    there = ", ".join(f"{stage} ({counts(states)})" for stage, states in by_stage)
    raise DataError(
        "no finished report",
        where=work_uri,
        got=there or "nothing that a stage has written",
        remedy="Correct the address, or let the run end: `limbeck status` shows how far it is",
    )


def fetch_report(store: Store, report: StageState, out: Path) -> Verdict:
    """Download a report: page, text and JSON, each checked against its sha256.

    Args:
        store: Where from.
        report: A complete one.
        out: The folder; files of an earlier report there are replaced.

    Raises:
        ConfigError: when the folder cannot be made.
        DataError: when files are missing from it, or it holds no decision.
        StorageError: when a file is corrupt or gone.
    """
    objects = report.manifest.objects if report.manifest else ()
    items = {item.uri.rpartition("/")[2]: item for item in objects if item.sha256}
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
    except OSError as error:
        raise ConfigError("cannot make the folder", where=f"--out {out}", got=str(error)) from error
    for name in FILES:
        store.read_file(items[name], out / name)
    try:
        return _Report.model_validate_json((out / "report.json").read_bytes()).decision
    except ValidationError as error:
        raise DataError(
            "a report.json without a decision",
            where=items["report.json"].uri,
            got=error.errors()[0]["msg"],
            remedy="Run the stage `report` again",
        ) from error
