"""`python -m limbeck.cli` is `limbeck`."""

from limbeck.cli import app

app()
