"""How every command ends: a foreseen failure is one line and its exit code, Ctrl-C is 130."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from limbeck.errors import LimbeckError
from limbeck.progress import PREFIX

INTERRUPTED = 130


@contextmanager
def one_line_errors(
    on_interrupt: str = "stopped. Run the same command again: finished work is kept",
) -> Iterator[None]:
    """End every foreseen failure with one line and its exit code, and clean up when asked to end."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    try:
        yield
    except LimbeckError as error:
        typer.echo(f"{PREFIX}error {error.exit_code}: {error}", err=True)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as interrupt:
        typer.echo(f"\n{PREFIX}{on_interrupt}", err=True)
        raise typer.Exit(INTERRUPTED) from interrupt
