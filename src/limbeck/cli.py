"""What people type: `limbeck run` and `limbeck demo`."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from limbeck import __version__
from limbeck.errors import LimbeckError
from limbeck.progress import PREFIX

if TYPE_CHECKING:
    from limbeck.config import RunFile
    from limbeck.storage import Store

# The same file in a checkout (a link into pipelines/) and in an installed package (a copy of it).
PIPELINE = Path(__file__).with_name("distill.yaml")
INTERRUPTED = 130

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Out = Annotated[Path | None, typer.Option(help="Folder for report, log and the embedded object store.")]
Pipeline = Annotated[Path, typer.Option(help="Another compiled pipeline to run.", show_default=False)]


@app.callback(invoke_without_command=True)
def limbeck(version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    """Distil data and rewards from a large language model into a small one."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def run(
    run_file: Annotated[Path, typer.Argument(help="YAML: work_uri, config, ...; see examples/.")],
    out: Out = None,
    pipeline: Pipeline = PIPELINE,
) -> None:
    """Run the pipeline on this machine with your own data and models.

    Without AWS_ENDPOINT_URL an object store is started for the run; its data stay in --out, so the same
    command goes on where an earlier one ended.
    """
    with _one_line_errors():
        from limbeck.config import load_run_file
        from limbeck.inputs import check_inputs, stage_inputs

        wanted = load_run_file(run_file)
        check_inputs(wanted.config)
        _distil(lambda store: stage_inputs(wanted, store), pipeline, out or Path("out") / run_file.stem)


@app.command()
def demo(
    seed: Annotated[int, typer.Option(help="Seed of task, models and run.", min=0)] = 1,
    out: Out = None,
) -> None:
    """Make a task and two tiny models, and teach the small one what the larger one half knows."""
    with _one_line_errors():
        from limbeck.demo.inputs import stage_demo

        _distil(lambda store: stage_demo(seed, store), PIPELINE, out or Path("out/demo"))


def _distil(stage: "Callable[[Store], RunFile]", pipeline: Path, out: Path) -> None:
    """Bring the inputs into an object store, run the pipeline, and fetch its report."""
    from limbeck import local
    from limbeck.errors import ConfigError

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("cannot make the folder", where=f"--out {out}", got=str(error)) from error
    with _object_store(out) as store:
        run_file = stage(store)
        typer.echo(f"{PREFIX}running; the log of every stage is {out / local.LOG}")
        # Kubeflow's parameters know no null; what is left out has its default, which is null too.
        arguments = run_file.model_dump(mode="json", exclude_none=True)
        status = local.run(pipeline, arguments, out)
        if status:
            typer.echo(f"{PREFIX}the whole log is {out / local.LOG}", err=True)
            raise typer.Exit(status)
        _fetch_report(store, out)


@contextmanager
def _object_store(out: Path) -> "Iterator[Store]":
    """The object store that AWS_ENDPOINT_URL names, else an embedded one with its data in `out`."""
    from limbeck import seaweed
    from limbeck.storage import Store

    if os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT_URL_S3"):
        yield Store()
    else:
        with seaweed.serve(out / "store") as store:
            yield store


def _fetch_report(store: "Store", out: Path) -> None:
    """Copy the report out of the store and say what was decided."""
    from limbeck.manifest import parse

    for artifact in (out / "kfp").glob("*/report/run_report"):
        manifest = parse(artifact.read_text(encoding="utf-8"), str(artifact))
        for item in manifest.objects:
            store.read_file(item, out / item.uri.rpartition("/")[2])
        decision = json.loads((out / "report.json").read_text(encoding="utf-8"))["decision"]
        typer.echo(f"{PREFIX}{decision['headline']} {decision['reason']}")
        typer.echo(f"{PREFIX}report: {out / 'report.html'} (the same in report.md and report.json)")


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """End every foreseen failure with one line and its exit code, and clean up when asked to end."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    try:
        yield
    except LimbeckError as error:
        typer.echo(f"{PREFIX}error {error.exit_code}: {error}", err=True)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as interrupt:
        typer.echo(f"\n{PREFIX}stopped. Run the same command again: finished work is kept", err=True)
        raise typer.Exit(INTERRUPTED) from interrupt


if __name__ == "__main__":
    app()
