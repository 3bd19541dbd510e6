"""Rows to Parquet parts in the store, and back.

A part's name carries the hash of its content (`part-00003-1f9c04aa.parquet`), so a part is never
replaced by another one, and a stage that was killed finds what it had finished.
"""

import re
import tempfile
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from limbeck.errors import DataError
from limbeck.manifest import Manifest
from limbeck.records import Row
from limbeck.storage import Store, StoredObject, sha256

RowType = TypeVar("RowType", bound=Row)
ARROW_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
PART_NAME = re.compile(r"/(?P<name>[a-z-]*\d{5})-[0-9a-f]{8}\.parquet$")


def write_rows(store: Store, uri: str, rows: Sequence[Row], name: str = "part-00000") -> StoredObject:
    """Write rows of one type as one Parquet part under a prefix.

    Args:
        store: Where to.
        uri: The prefix.
        rows: At least one row; all of the same type.
        name: The part's name before its hash; `part-00000` and so on.
    """
    schema = _schema(type(rows[0]))
    table = pa.Table.from_pylist([row.model_dump() for row in rows], schema=schema)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.parquet"
        pq.write_table(table, path, compression="zstd")
        return store.write_file(path, f"{uri}/{name}-{sha256(path)[:8]}.parquet", rows=len(rows))


def finished_parts(store: Store, uri: str) -> dict[str, StoredObject]:
    """The parts that an earlier attempt left under a prefix, by the name given to `write_rows`."""
    parts = {}
    for part_uri in store.sizes(uri):
        match = PART_NAME.search(part_uri)
        item = store.stored(part_uri) if match else None
        if match and item is not None:
            parts[match["name"]] = item
    return parts


def read_rows(store: Store, manifest: Manifest, row_type: type[RowType]) -> list[RowType]:
    """All rows of a manifest's Parquet parts, in the manifest's order.

    Raises:
        DataError: when a row is not of the type.
        StorageError: when a part is missing or corrupt.
    """
    return [row for item in manifest.objects if is_part(item) for row in read_part(store, item, row_type)]


def read_all(store: Store, manifests: Iterable[Manifest], row_type: type[RowType]) -> list[RowType]:
    """All rows of several manifests (the shards of one stage), one after another."""
    return [row for manifest in manifests for row in read_rows(store, manifest, row_type)]


def read_part(store: Store, item: StoredObject, row_type: type[RowType]) -> list[RowType]:
    """The rows of one Parquet part; see `read_rows`."""
    with tempfile.TemporaryDirectory() as folder:
        path = store.read_file(item, Path(folder) / "part.parquet")
        values = pq.read_table(path).to_pylist()
    rows = []
    for number, value in enumerate(values):
        try:
            rows.append(row_type.model_validate(value))
        except ValidationError as error:
            first = error.errors()[0]
            raise DataError(
                f"not a row of {row_type.__name__}",
                where=f"{item.uri}, row {number}, field {'.'.join(map(str, first['loc']))}",
                expected=first["msg"],
                got=repr(first["input"])[:80],
                remedy="Give the output of the stage that makes these rows",
            ) from error
    return rows


def is_part(item: StoredObject) -> bool:
    """Whether an object is a part of rows (and not rows set aside, or a file of a checkpoint)."""
    match = PART_NAME.search(item.uri)
    return match is not None and match["name"].startswith("part-")


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
