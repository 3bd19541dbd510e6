"""The rows of one local file as they lie there: JSON lines or Parquet."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from limbeck.questions import MAX_LINE_BYTES, Raw
from limbeck.rows import parquet_rows


def raw_rows(path: Path, name: str, columns: Sequence[str]) -> Iterator[tuple[int, Raw]]:
    """Numbered rows of a file.

    Args:
        path: The file.
        name: What messages call it; its suffix tells its kind.
        columns: What is read of files that have columns.

    Raises:
        DataError: when it is not what its name says.
    """
    if name.endswith(".parquet"):
        yield from enumerate(parquet_rows(path, name, columns), 1)
        return
    with path.open("rb") as file:
        yield from ((number, line) for number, line in enumerate(_lines(file), 1) if line.strip())


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; of one that is too long its beginning, which is still too long."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        yield line
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES + 1)
