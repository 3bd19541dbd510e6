"""`limbeck run` and `limbeck demo`: a compiled pipeline on this machine."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from limbeck.cli.terminal import one_line_errors
from limbeck.progress import PREFIX

if TYPE_CHECKING:
    from limbeck.manifest import Manifest
    from limbeck.run_file import RunFile
    from limbeck.storage import Store

Out = Annotated[Path | None, typer.Option(help="Folder for report, log and the embedded object store.")]
Pipeline = Annotated[
    str,
    typer.Option(help="A pipeline by name (distill, distill_minimal, distill_data, ...) or compiled file."),
]


def run(
    run_file: Annotated[Path, typer.Argument(help="YAML of the pipeline's parameters; see `limbeck init`.")],
    out: Out = None,
    pipeline: Pipeline = "distill",
) -> None:
    """Run a pipeline on this machine with your own data and models.

    Without AWS_ENDPOINT_URL an object store is started for the run; its data stay in --out, so the same
    command goes on where an earlier one ended.
    """
    with one_line_errors():
        from limbeck.compiled import find, load
        from limbeck.inputs import check_inputs, stage_inputs
        from limbeck.run_file import arguments, load_run_file

        wanted, path = load_run_file(run_file), find(pipeline)
        arguments(wanted, load(path))
        check_inputs(wanted)
        _distil(lambda store: stage_inputs(wanted, store), path, out or Path("out") / run_file.stem)


def demo(
    seed: Annotated[int, typer.Option(help="Seed of task, models and run.", min=0)] = 1,
    out: Out = None,
    pipeline: Pipeline = "distill",
) -> None:
    """Make a task and two tiny models, and teach the small one what the larger one half knows."""
    with one_line_errors():
        from limbeck.compiled import find
        from limbeck.demo.inputs import stage_demo

        path = find(pipeline)
        ablation = path == find("ablation")
        _distil(lambda store: stage_demo(seed, store, ablation=ablation), path, out or Path("out/demo"))


def preflight(
    run_file: Annotated[Path, typer.Argument(help="YAML of the pipeline's parameters; see `limbeck init`.")],
    pipeline: Pipeline = "distill",
) -> None:
    """Check a run file, and all that it names, before anything is started.

    The object store is the one of the AWS_* variables. Local files and folders are checked where they are.
    """
    with one_line_errors():
        from limbeck.compiled import find, load
        from limbeck.preflight import Finding, check_run_file, conclude
        from limbeck.run_file import load_run_file, refusals

        wanted, compiled = load_run_file(run_file), load(find(pipeline))
        refused = [Finding(error) for error in refusals(wanted, compiled)]
        outcome = check_run_file(
            wanted, compiled.stages, gold_labels=compiled.gold_labels, open_ended=compiled.open_ended
        )
        conclude([*refused, *outcome.findings], outcome.checked)


def _distil(stage: "Callable[[Store], RunFile]", pipeline: Path, out: Path) -> None:
    """Bring the inputs into an object store, run the pipeline, and fetch its report."""
    from limbeck import local
    from limbeck.compiled import load
    from limbeck.errors import ConfigError
    from limbeck.run_file import arguments

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("cannot make the folder", where=f"--out {out}", got=str(error)) from error
    with _object_store(out) as store:
        from limbeck.reuse import finished_report

        run_file = stage(store)
        if finished := finished_report(store, run_file, pipeline):
            typer.echo(f"{PREFIX}all results are there already, so nothing runs")
            _say_verdict(store, finished, out)
            return
        typer.echo(f"{PREFIX}running; the log of every stage is {out / local.LOG}")
        status = local.run(pipeline, arguments(run_file, load(pipeline)), out)
        if status:
            typer.echo(f"{PREFIX}the whole log is {out / local.LOG}", err=True)
            raise typer.Exit(status)
        _fetch_reports(store, out)


@contextmanager
def _object_store(out: Path) -> "Iterator[Store]":
    """The object store that AWS_ENDPOINT_URL names, else an embedded one with its data in `out`."""
    from limbeck import seaweed
    from limbeck.storage import Store

    if os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT_URL_S3"):
        yield Store()
    else:
        # Half a second of imports.
        with seaweed.serve(out / "store", meanwhile=lambda: import_module("limbeck.reuse")) as store:
            yield store


def _fetch_reports(store: "Store", out: Path) -> None:
    """Copy what the run that just ended has reported out of the store."""
    from limbeck.manifest import parse

    for artifact in (out / "kfp").glob("*/report/run_report"):
        _say_verdict(store, parse(artifact.read_bytes(), str(artifact)), out)
    for artifact in (out / "kfp").glob("*/compare/comparison"):
        for item in parse(artifact.read_bytes(), str(artifact)).objects:
            store.read_file(item, out / item.uri.rpartition("/")[2])
        typer.echo(f"{PREFIX}ablation: {out / 'ablation.html'} (the same in ablation.md and ablation.json)")


def _say_verdict(store: "Store", report: "Manifest", out: Path) -> None:
    """Copy a report out of the store and say what was decided."""
    from limbeck.fetch_report import fetch_report
    from limbeck.status_text import printable

    verdict = fetch_report(store, report, out)
    typer.echo(printable(f"{PREFIX}{verdict.headline} {verdict.reason}"))
    typer.echo(f"{PREFIX}report: {out / 'report.html'} (the same in report.md and report.json)")
