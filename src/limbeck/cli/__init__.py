"""What people type: `limbeck COMMAND`. Commands import what they need only when they are called."""

from collections.abc import Callable
from typing import Annotated

import typer

from limbeck import __version__
from limbeck.cli import cluster, runs, work
from limbeck.cli.export import export
from limbeck.cli.plan import plan

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def limbeck(version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    """Distil data and rewards from a large language model into a small one."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


# In the order in which people need them.
COMMANDS: dict[str, Callable[..., None]] = {
    "demo": runs.demo,
    "init": work.init,
    "plan": plan,
    "preflight": runs.preflight,
    "run": runs.run,
    "compile": cluster.compile_pipeline,
    "lint": cluster.lint,
    "images": cluster.images,
    "submit": cluster.submit,
    "cancel": cluster.cancel,
    "status": work.status,
    "report": work.report,
    "export": export,
    "gc": work.gc,
}
for name, command in COMMANDS.items():
    app.command(name)(command)
