"""Rows to Parquet parts in the store, and back.

A part's name carries its number of rows and the sha256 of its content, so a part is never replaced by
another one, and a stage that was killed finds what it had finished by one listing, without a question for
each part: `part-00003-100-1f9c04aa...52d1.parquet`.

`read_rows` and `write_rows` hold all rows at once. `iter_rows` and `PartWriter` hold one batch of them
and, on the local disk, one part: for stages whose rows may outgrow memory.
"""

import re
import tempfile
import types
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar, Union, get_args, get_origin

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from limbeck.errors import DataError
from limbeck.manifest import Manifest
from limbeck.records import Row
from limbeck.storage import Store, StoredObject, sha256

RowType = TypeVar("RowType", bound=Row)
ARROW_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
PART_NAME = re.compile(
    r"/(?P<name>[a-z-]*\d{5,})-((?P<rows>\d{1,12})-(?P<sha256>[0-9a-f]{64})|[0-9a-f]{8})\.parquet$", re.ASCII
)
"""Others may write parts with eight digits of the hash alone; those are asked for rows and sha256."""
BATCH_ROWS = 2000
"""Rows in memory at once while a part is written or read: 160 MB of 80 kB rows."""
ROWS_PER_PART = 100_000
BUFFER_BYTES = 1 << 20
"""Parquet pages are read through a buffer of this size, or a column of a large row group is read whole."""


def write_rows(store: Store, uri: str, rows: Sequence[Row], name: str = "part-00000") -> StoredObject:
    """Write rows of one type as one Parquet part under a prefix.

    Args:
        store: Where to.
        uri: The prefix.
        rows: At least one row; all of the same type.
        name: The part's name before its hash; `part-00000` and so on.
    """
    batch = _batch(rows, _schema(type(rows[0])))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.parquet"
        pq.write_table(pa.Table.from_batches([batch]), path, compression="zstd")
        return store.write_file(path, _part_uri(uri, name, len(rows), path), rows=len(rows))


class PartWriter(Generic[RowType]):
    """Writes rows of one type as Parquet parts under a prefix, as they come.

    A part is uploaded when it is full, the last one when the `with` block ends without an error.
    """

    def __init__(
        self,
        store: Store,
        uri: str,
        row_type: type[RowType],
        name: str = "part",
        rows_per_part: int = ROWS_PER_PART,
    ) -> None:
        """Name the place; without rows no part is made.

        Args:
            store: Where to.
            uri: The prefix.
            row_type: What is written.
            name: The parts' name before number and hash; only those called `part` are read as rows.
            rows_per_part: Rows in each part but the last one.
        """
        self.objects: list[StoredObject] = []
        self.num_rows = 0
        self._store, self._uri, self._name, self._rows_per_part = store, uri, name, rows_per_part
        self._schema = _schema(row_type)
        self._batch: list[RowType] = []
        self._in_part = 0  # rows of the current part that are on the disk
        self._file: Any = None  # the current part, a pq.ParquetWriter

    def __enter__(self) -> Self:
        """Make room on the local disk."""
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "part.parquet"
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Upload the rest; after an error nothing more is uploaded."""
        with self._folder:
            if error is None:
                self._flush()
                self._upload()

    def add(self, row: RowType) -> None:
        """Write one row."""
        self._batch.append(row)
        self.num_rows += 1
        if len(self._batch) == min(BATCH_ROWS, self._rows_per_part - self._in_part):
            self._flush()
        if self._in_part == self._rows_per_part:
            self._upload()

    def _flush(self) -> None:
        """Put the batch onto the disk."""
        if not self._batch:
            return
        if self._file is None:
            self._file = pq.ParquetWriter(self._path, self._schema, compression="zstd")
        self._file.write_batch(_batch(self._batch, self._schema))
        self._in_part += len(self._batch)
        self._batch = []

    def _upload(self) -> None:
        """Finish the current part, if there is one."""
        if self._file is None:
            return
        self._file.close()
        uri = _part_uri(self._uri, f"{self._name}-{len(self.objects):05d}", self._in_part, self._path)
        self.objects.append(self._store.write_file(self._path, uri, rows=self._in_part))
        self._file, self._in_part = None, 0


def finished_parts(store: Store, uri: str) -> dict[str, StoredObject]:
    """The parts that earlier attempts left under a prefix, by the folder below it, if any, and their name.

    Of two with the same name, which only an attempt that has lost its lease can leave, one is taken.
    """
    parts = {}
    for part_uri, size in store.sizes(uri).items():
        match = PART_NAME.search(part_uri)
        item = listed_part(part_uri, size) or (store.stored(part_uri) if match else None)
        if match and item is not None:
            folder = part_uri[: match.start() + 1].removeprefix(f"{uri}/")
            parts[folder + match["name"]] = item
    return parts


def num_rows(store: Store, item: StoredObject) -> int:
    """How many rows a part holds: as its name or manifest tells; parts of others may have to be read."""
    if item.rows:
        return item.rows
    with tempfile.TemporaryDirectory() as folder:
        path = store.read_file(item, Path(folder) / "part.parquet")
        return sum(1 for _ in parquet_rows(path, item.uri))


def listed_part(uri: str, size: int) -> StoredObject | None:
    """A part as its name and a listing describe it; None when the name does not say all."""
    match = PART_NAME.search(uri)
    if match is None or match["sha256"] is None:
        return None
    return StoredObject(uri=uri, bytes=size, sha256=match["sha256"], rows=int(match["rows"]))


def _part_uri(uri: str, name: str, rows: int, path: Path) -> str:
    """Where a part goes, under a name that tells what it is."""
    return f"{uri}/{name}-{rows}-{sha256(path)}.parquet"


def read_rows(store: Store, manifest: Manifest, row_type: type[RowType]) -> list[RowType]:
    """All rows of a manifest's Parquet parts, in the manifest's order; see `iter_rows`."""
    return list(iter_rows(store, [manifest], row_type))


def read_part(store: Store, item: StoredObject, row_type: type[RowType]) -> list[RowType]:
    """The rows of one Parquet part; see `iter_rows`."""
    with tempfile.TemporaryDirectory() as folder:
        return list(_iter_part(store, item, row_type, Path(folder)))


def iter_rows(store: Store, manifests: Iterable[Manifest], row_type: type[RowType]) -> Iterator[RowType]:
    """All rows of several manifests (the shards of one stage), one after another, as they are asked for.

    Raises:
        DataError: when a part is no Parquet file, or a row is not of the type.
        StorageError: when a part is missing or corrupt.
    """
    with tempfile.TemporaryDirectory() as folder:  # one for all: to remove one takes milliseconds
        for manifest in manifests:
            for item in manifest.objects:
                if is_part(item):
                    yield from _iter_part(store, item, row_type, Path(folder))


def parquet_rows(path: Path, where: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a local Parquet file as they lie there, unchecked.

    Args:
        path: The file.
        where: What messages call it.
        columns: What is read, as far as it is there; None reads all.

    Raises:
        DataError: when it is no Parquet file, a damaged one, or holds values that Python has no type for.
    """
    try:
        with pq.ParquetFile(path, buffer_size=BUFFER_BYTES) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError("not a Parquet file", where=where, got=str(error), remedy="Write it again") from error


def parquet_columns(path: Path, where: str) -> list[str]:
    """The columns of a local Parquet file.

    Raises:
        DataError: when it is no Parquet file, or a damaged one.
    """
    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError("not a Parquet file", where=where, got=str(error), remedy="Write it again") from error


def _iter_part(store: Store, item: StoredObject, row_type: type[RowType], folder: Path) -> Iterator[RowType]:
    """The rows of one part, checked one by one; it lies in the folder meanwhile."""
    path = store.read_file(item, folder / "part.parquet")
    for number, value in enumerate(parquet_rows(path, item.uri)):
        try:
            yield row_type.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            raise DataError(
                f"not a row of {row_type.__name__}",
                where=f"{item.uri}, row {number}, field {'.'.join(map(str, first['loc']))}",
                expected=first["msg"],
                got=repr(first["input"])[:80],
                remedy="Give the output of the stage that makes these rows",
            ) from error
    path.unlink()


def is_part(item: StoredObject) -> bool:
    """Whether an object is a part of rows (and not rows set aside, or a file of a checkpoint)."""
    match = PART_NAME.search(item.uri)
    return match is not None and match["name"].startswith("part-")


def _batch(rows: Sequence[Row], schema: Any) -> Any:
    """Rows as an Arrow batch, column by column: three times as fast as row by row."""
    columns = [pa.array([getattr(row, field.name) for row in rows], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _schema(row_type: type[Row]) -> Any:
    """The Arrow schema of a row type; all rows of a type have it, whatever their values."""
    return pa.schema(
        [
            pa.field(name, _arrow_type(field.annotation), nullable=True)
            for name, field in row_type.model_fields.items()
        ]
    )


def _arrow_type(annotation: Any) -> Any:
    """The Arrow type of a field: of the one member that is not None, or of a literal's values."""
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is Literal:
        annotation = type(get_args(annotation)[0])
    return ARROW_TYPES[annotation]
