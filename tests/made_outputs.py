"""Outputs of stages made by hand in a store, and the two commands that show them."""

from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from limbeck.cli.work import report, status
from limbeck.manifest import Manifest, commit
from limbeck.records import GoldAnswer
from limbeck.rows import write_rows
from limbeck.status import STAGES
from limbeck.storage import Store

app = typer.Typer()
for command in (status, report):
    app.command()(command)

PAGE = {
    "report.html": "<p>page</p>",
    "report.md": "page",
    "report.json": '{"decision": {"headline": "Promote.", "reason": "It won."}, "other": 1}',
}


def rows(number: int) -> list[GoldAnswer]:
    return [GoldAnswer(prompt_id=str(n), answer="a") for n in range(number)]


def made(store: Store, uri: str, content: str = "", **values: Any) -> Manifest:
    """Commit one output of a stage as the stage would: three rows, then the manifest.

    Args:
        store: Where to.
        uri: The output's prefix; its stage is named in it.
        content: Makes the rows other ones.
        values: Fields of the manifest other than the usual ones.
    """
    item = write_rows(store, uri, [*rows(2), GoldAnswer(prompt_id="last", answer=content)])
    usual = {
        "stage": next(name for name in uri.split("/") if name in STAGES),
        "kind": "rows",
        "name": "rows",
        "uri": uri,
        "objects": (item,),
        "inputs": {},
        "config_hash": "c0ffee",
        "code_version": "0.1.0+abc",
        "num_rows": item.rows,
    }  # fmt: skip
    return commit(store, Manifest.model_validate(usual | values))


def made_report(
    store: Store, uri: str, folder: Path, pages: dict[str, str] = PAGE, **values: Any
) -> Manifest:
    folder.mkdir(exist_ok=True)
    for name, content in pages.items():
        (folder / name).write_text(content)
    usual = {
        "stage": "report", "kind": "report", "name": "report", "uri": uri, "inputs": {},
        "objects": store.write_folder(folder, uri), "config_hash": "", "code_version": "",
    }  # fmt: skip
    return commit(store, Manifest.model_validate(usual | values))


def later(store: Store, uri: str) -> None:
    """Write an object until the server's clock gives it another time than all others have."""
    base = uri.rpartition("/")[0]
    before = max((item.modified for item in store.listing(base).values()), default=None)
    while True:
        store.write_bytes(f"{uri}/clock", b"")
        if before is None or store.listing(uri)[f"{uri}/clock"].modified > before:
            return


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
