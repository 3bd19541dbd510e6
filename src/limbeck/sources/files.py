"""The rows of one file as they lie there: JSON lines, a JSON array, CSV or Parquet.

Memory holds one row, or one batch of a Parquet file. A row that cannot be read is told as such and the next
one comes; where nothing tells the next one's beginning (an array that breaks off, a quote that is never
closed) the file is refused: what lies behind would be lost without a word.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from limbeck.errors import DataError
from limbeck.questions import MAX_LINE_BYTES, Raw, Unread
from limbeck.records import DATA_SUFFIXES

BOM = b"\xef\xbb\xbf"
SPACE = " \t\r\n"
CHUNK_CHARS = 1 << 16


def is_data(name: str) -> bool:
    """Whether a file of a folder holds rows; Spark, Hive and others put `_SUCCESS` and `.crc` beside them."""
    own = name.rpartition("/")[2]
    return own.lower().endswith(DATA_SUFFIXES) and not own.startswith(("_", "."))


def numbered_rows(path: Path, name: str, columns: Sequence[str]) -> Iterator[tuple[int, Raw]]:
    """The rows of a file with their numbers, from 1.

    Args:
        path: The file.
        name: What messages call it; its suffix tells its kind.
        columns: What is read of files that have columns; the first must be there.

    Raises:
        DataError: when it is not what its name says, or lacks the first column.
    """
    if name.lower().endswith(".parquet"):
        yield from enumerate(_parquet(path, name, columns), 1)
        return
    with path.open("rb") as file:
        yield from text_rows(file, name, columns)


def text_rows(file: BinaryIO, name: str, columns: Sequence[str]) -> Iterator[tuple[int, Raw]]:
    """The rows of any kind but Parquet, from the beginning of an open file; see `numbered_rows`."""
    if file.read(len(BOM)) != BOM:
        file.seek(0)
    if name.lower().endswith(".csv"):
        yield from _csv(file, name, columns)
    elif name.lower().endswith(".json") and _is_array(file):
        yield from _array(file, name)
    else:
        yield from ((number, line) for number, line in enumerate(_lines(file), 1) if line.strip())


def require_column(found: Sequence[str], columns: Sequence[str], name: str) -> None:
    """Check that there is what is asked.

    Raises:
        DataError: naming the columns that are there.
    """
    if columns[0] not in found:
        raise DataError(
            f"no column `{columns[0]}`",
            where=name,
            expected="the column that is asked",
            got=", ".join(found)[:200] or "no columns",
            remedy="Name yours in prepare.fields, or set prepare.preset to the data set's form",
        )


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; of one that is too long its beginning, which is still too long."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        yield line
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES + 1)


def _is_array(file: BinaryIO) -> bool:
    """Whether the rest of a file begins like an array; its place in the file stays."""
    place = file.tell()
    head = file.read(CHUNK_CHARS).lstrip()
    file.seek(place)
    return head.startswith(b"[")


def _array(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """The items of an array, as the text that each is written in."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    decoder, buffer, number = json.JSONDecoder(), "", 0
    try:
        buffer = text.read(CHUNK_CHARS).lstrip(SPACE)[1:].lstrip(SPACE)
        while not buffer.startswith("]"):
            number += 1
            while (end := _item_end(decoder, buffer)) is None:
                more = text.read(max(CHUNK_CHARS, len(buffer)))  # as much again: each row is tried few times
                if not more or len(buffer) > MAX_LINE_BYTES:
                    raise _broken_off(name, number, buffer)
                buffer = (buffer + more).lstrip(SPACE)
            yield number, buffer[:end].encode("utf-8", "surrogatepass")
            buffer = buffer[end:].lstrip(SPACE)
            buffer = buffer.removeprefix(",").lstrip(SPACE) or text.read(CHUNK_CHARS).lstrip(SPACE)
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8", where=name, got=str(error), remedy="Write it again in UTF-8") from error
    finally:
        text.detach()  # who opened the file closes it


def _item_end(decoder: json.JSONDecoder, buffer: str) -> int | None:
    """Where the first item ends, if what comes behind it is there too: `1` may go on as `12`."""
    try:
        _, end = decoder.raw_decode(buffer)
    except (ValueError, RecursionError):
        return None
    return end if buffer[end:].lstrip(SPACE)[:1] in (",", "]") and buffer[end:].strip(SPACE) else None


def _broken_off(name: str, number: int, buffer: str) -> DataError:
    return DataError(
        "a JSON array breaks off",
        where=f"{name}, row {number}",
        expected="an item, and a comma or the end of the array behind it",
        got=repr(buffer[:60]) if buffer else "the end of the file",
        remedy="Mend the file, or write one object a line (.jsonl), of which single ones may be broken",
    )


def _csv(file: BinaryIO, name: str, columns: Sequence[str]) -> Iterator[tuple[int, Raw]]:
    """The rows of a CSV file (RFC 4180, comma, a header) by column; empty cells are None."""
    csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.reader((line.decode("utf-8", "surrogateescape") for line in _lines(file)), strict=True)
    header: list[str] = []
    number = 0
    while True:
        begin = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # A quote that is left open swallows lines until the next one: only one line's loss is known.
            if not header or "expected after" not in str(error) or reader.line_num > begin:
                raise DataError(
                    "not CSV",
                    where=f"{name}, line {begin}",
                    expected="commas, and quotes around what holds commas, quotes or line ends",
                    got=str(error),
                    remedy="Close its quotes, or write it again with a library",
                ) from error
            number += 1
            yield number, Unread("not CSV", f"line {begin}: {error}")
            continue
        if not header:
            header = [cell.strip() for cell in cells]
            require_column(header, columns, name)
        elif cells:
            number += 1
            yield number, _by_column(header, cells)


def _by_column(header: Sequence[str], cells: Sequence[str]) -> Raw:
    """A row of CSV; a comma too many, or a quote that is missing, shifts what stands behind it."""
    if len(cells) != len(header):
        return Unread("not as many cells as columns", repr(cells))
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return Unread("not UTF-8", repr(cells))
    return {name: cell or None for name, cell in zip(header, cells, strict=True)}


def _parquet(path: Path, name: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file by column."""
    from limbeck.rows import parquet_columns, parquet_rows  # noqa: PLC0415 - Arrow takes a good part of a second

    require_column(parquet_columns(path, name), columns, name)
    yield from parquet_rows(path, name, columns)
