"""`limbeck init`, `status`, `report` and `gc`: what comes before a run, during it and after it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from limbeck.cli.terminal import one_line_errors
from limbeck.progress import PREFIX

if TYPE_CHECKING:
    from datetime import timedelta

    from limbeck.storage import Store

WorkUri = Annotated[str, typer.Argument(help="The run's `work_uri`, such as s3://bucket/work.")]
StoreFolder = Annotated[
    Path | None,
    typer.Option(help="Open the embedded store of `limbeck run --out DIR`: give DIR/store."),
]


def init(
    file: Annotated[Path, typer.Argument(help="What to write; - for the terminal.")] = Path("run.yaml"),
    pipeline: Annotated[
        str,
        typer.Option(help="A pipeline by name (distill, distill_minimal, ...) or compiled file."),
    ] = "distill",
    full: Annotated[
        bool, typer.Option("--full", help="Every setting, not only the first to change.")
    ] = False,
) -> None:
    """Write a run file with every parameter explained, to fill in and to run.

    A file that is there already is kept.
    """
    with one_line_errors():
        from limbeck.compiled import find, load
        from limbeck.errors import ConfigError
        from limbeck.init_file import PLACEHOLDER, run_file_text

        text = run_file_text(pipeline, load(find(pipeline)), full=full)
        if str(file) == "-":
            typer.echo(text, nl=False)
            return
        try:
            with file.open("x", encoding="utf-8") as new:
                new.write(text)
        except FileExistsError as error:
            raise ConfigError(
                "the file is there already", where=str(file), remedy="Give another name"
            ) from error
        except OSError as error:
            raise ConfigError("cannot write the file", where=str(file), got=str(error)) from error
        typer.echo(f"{PREFIX}wrote {file}; replace every {PLACEHOLDER} in it")


def status(
    work_uri: WorkUri,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: JSON with every field.")] = False,
    against: Annotated[
        Path | None, typer.Option(metavar="RUN.YAML", help="Say what this run would reuse, and why not more.")
    ] = None,
    pipeline: Annotated[str, typer.Option(help="With --against: the pipeline that would run.")] = "distill",
    store: StoreFolder = None,
) -> None:
    """Show what each stage has done, from the object store alone.

    With --against each task of a run that would begin now: whether its result is there, and if not whether
    inputs, settings or code have changed.

    The store is the one of the AWS_* variables, unless --store is given.
    """
    with one_line_errors(), opened(store) as client:
        from datetime import UTC, datetime

        from limbeck import status_text
        from limbeck.lineage import newest_chain
        from limbeck.status import inspect

        work = inspect(client, _checked(work_uri))
        if against is not None:
            from limbeck import reuse
            from limbeck.compiled import find, load
            from limbeck.run_file import load_run_file

            wanted = load_run_file(against).model_copy(update={"work_uri": work.work_uri})
            tasks = reuse.Outlook(client, wanted, load(find(pipeline)), work.stages).follow()
            typer.echo(reuse.as_json(tasks) if as_json else reuse.text(tasks, str(against)))
            return
        chain = newest_chain(client, work.stages)
        shown = (
            status_text.as_json(work, chain) if as_json else status_text.text(work, chain, datetime.now(UTC))
        )
        typer.echo(shown)


def report(
    work_uri: WorkUri,
    out: Annotated[Path, typer.Option(help="Folder for report.html, report.md, report.json.")] = Path(),
    list_all: Annotated[
        bool, typer.Option("--list", help="Show which reports there are; fetch none.")
    ] = False,
    plan: Annotated[
        Path | None,
        typer.Option(metavar="PLAN.JSON", help="Say what came of this plan, of `limbeck plan --json`."),
    ] = None,
    store: StoreFolder = None,
) -> None:
    """Fetch the newest finished report and say what was decided.

    The store is the one of the AWS_* variables, unless --store is given.
    """
    with one_line_errors(), opened(store) as client:
        from limbeck.fetch_report import fetch_report, newest_report
        from limbeck.planning import against
        from limbeck.status import inspect
        from limbeck.status_text import minute, printable, reports_text

        uri = _checked(work_uri)
        planned = against.load_plan(plan) if plan else None
        if list_all and (reports := inspect(client, uri, "report").stages):
            typer.echo(reports_text(reports))
            return
        manifest, written = newest_report(client, uri)
        verdict = fetch_report(client, manifest, out)
        typer.echo(printable(f"{PREFIX}{verdict.headline} {verdict.reason}"))
        if planned:
            typer.echo(against.text(planned, against.load_report(out / "report.json")))
        typer.echo(f"{PREFIX}report of {minute(written)} UTC: {out / 'report.html'}")


def gc(
    work_uri: WorkUri,
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; else it is only shown.")] = False,
    older_than: Annotated[
        str, typer.Option(help="Younger uploads, probes and unfinished work stay: 7d, 12h, 30m or 0.")
    ] = "7d",
    keep_states: Annotated[
        int, typer.Option(min=0, help="Training states that stay beside a finished checkpoint.")
    ] = 1,
    states: Annotated[
        bool, typer.Option("--states", help="Training states of unfinished stages too: they start anew.")
    ] = False,
    inputs: Annotated[
        bool, typer.Option("--inputs", help="Uploaded inputs too that no manifest was made from.")
    ] = False,
    store: StoreFolder = None,
) -> None:
    """Show what nothing refers to any more, and with --delete remove it.

    What a manifest lists stays, and all that an attempt is at work on. The store is the one of the AWS_*
    variables, unless --store is given.
    """
    with one_line_errors(), opened(store) as client:
        from limbeck.garbage import Policy, find_garbage
        from limbeck.gc import remove, text

        uri = _checked(work_uri)
        policy = Policy(_age(older_than), keep_states, unfinished_states=states, inputs=inputs)
        found = find_garbage(client, uri, policy)
        if delete:
            found = remove(client, uri, policy, found)
        typer.echo(text(uri, found, removed=delete))


def _age(text: str) -> "timedelta":
    """An age as the command line takes it."""
    import re
    from datetime import timedelta

    from limbeck.errors import ConfigError

    match = re.fullmatch(r"0|(\d{1,5})([dhm])", text, re.ASCII)
    if match is None:
        raise ConfigError(
            "not an age", where="--older-than", expected="7d, 12h, 30m or 0", got=repr(text)[:40]
        )
    units = {"d": "days", "h": "hours", "m": "minutes"}
    return timedelta(**{units[match[2] or "d"]: int(match[1] or 0)})


def _checked(work_uri: str) -> str:
    """A work_uri as a run file takes it."""
    from limbeck.run_file import RunFile
    from limbeck.section import parse

    return parse(RunFile, {"work_uri": work_uri}, "the command line").work_uri.rstrip("/")


@contextmanager
def opened(folder: Path | None) -> "Iterator[Store]":
    """The object store of the environment, or an embedded one that an earlier run has left."""
    from limbeck import seaweed
    from limbeck.errors import ConfigError
    from limbeck.storage import Store

    if folder is None:
        yield Store()
        return
    if not (folder / "data").is_dir():
        raise ConfigError(
            "no embedded store there",
            where=f"--store {folder}",
            expected="the folder `store` below the --out of `limbeck run`",
            remedy="Correct the path",
        )
    with seaweed.serve(folder) as client:
        yield client
