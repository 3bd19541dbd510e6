"""Finds credentials in what a run leaves behind: texts, files, objects, and what lies packed inside them.

Each secret is looked for as it is and as JSON, URLs, HTML, base64 and hex write it. Archives (zip, tar) and
compressed data (gzip, bzip2, xz, zstd) are opened, and the columns of Parquet files decoded.
"""

import base64
import bz2
import gzip
import html
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

import pyarrow as pa
import pyarrow.parquet as pq

from limbeck.storage import Store

SHORTEST = 8
"""A shorter secret would be found by chance."""
DEEPEST = 4
"""Archives within archives that are opened."""


def found_in_text(credentials: Mapping[str, str], text: str, where: str) -> list[str]:
    """Where credentials stand in a text.

    Args:
        credentials: Secrets by the name that the result calls them; the secrets are never in the result.
        text: What a program printed.
        where: What the result calls it.

    Returns:
        One line for each form of each secret: `NAME as FORM in WHERE`.
    """
    return list(_found(_forms(credentials), text.encode("utf-8", "surrogateescape"), where))


def found_in_folder(credentials: Mapping[str, str], folder: Path) -> list[str]:
    """Where credentials stand in the files of a folder, in their names, or in what links name."""
    needles, found = _forms(credentials), list[str]()
    for path in sorted(folder.rglob("*")):
        found += _found(needles, str(path.relative_to(folder)).encode(), f"the name of {path}")
        if path.is_symlink():
            found += _found(needles, str(path.readlink()).encode(), f"the link {path}")
        elif path.is_file():
            found += _found(needles, path.read_bytes(), str(path))
    return found


def found_in_store(credentials: Mapping[str, str], store: Store, prefix_uri: str) -> list[str]:
    """Where credentials stand in the objects below a prefix, or in their keys."""
    needles, found = _forms(credentials), list[str]()
    for uri in store.sizes(prefix_uri):
        found += _found(needles, uri.encode(), f"the key of {uri}")
        found += _found(needles, store.read_bytes(uri), uri)
    return found


def _forms(credentials: Mapping[str, str]) -> dict[bytes, str]:
    """What is looked for, with its description."""
    forms: dict[bytes, str] = {}
    for name, secret in credentials.items():
        if len(secret) < SHORTEST:
            raise ValueError(f"{name} is too short to be looked for")
        raw = secret.encode()
        for form, written in (
            ("it is", secret),
            ("JSON", json.dumps(secret)[1:-1]),
            ("JSON", json.dumps(secret)[1:-1].replace("/", "\\/")),
            ("URL", quote(secret, safe="")),
            ("URL", quote(secret)),
            ("URL", quote_plus(secret)),
            ("HTML", html.escape(secret)),
            ("hex", raw.hex()),
            ("hex", raw.hex().upper()),
            ("hex", raw.hex(":")),
        ):
            forms.setdefault(written.encode(), f"{name} as {form}")
        for shift in range(3):
            # Within other bytes, base64 writes a secret in one of three ways; the characters at its ends
            # also hold bits of its neighbours.
            shifted = base64.b64encode(b"\0" * shift + raw)
            core = shifted[(0, 2, 3)[shift] : (shift + len(raw)) * 8 // 6]
            forms.setdefault(core, f"{name} as base64")
            forms.setdefault(core.translate(bytes.maketrans(b"+/", b"-_")), f"{name} as base64")
    return forms


def _found(needles: Mapping[bytes, str], data: bytes, where: str, depth: int = 0) -> Iterator[str]:
    """Every needle in some bytes, and in what is packed in them."""
    for needle, description in needles.items():
        if needle in data:
            yield f"{description} in {where}"
    if depth < DEEPEST:
        for name, inner in _unpacked(data):
            yield from _found(needles, inner, f"{where} ({name})", depth + 1)


def _unpacked(data: bytes) -> Iterator[tuple[str, bytes]]:
    """What is packed in some bytes, told by how they begin; a damaged package is an error."""
    if data[:4] == b"PAR1":
        with pq.ParquetFile(io.BytesIO(data)) as file:
            for batch in file.iter_batches(batch_size=1000):
                yield "rows", json.dumps(batch.to_pylist(), default=repr, ensure_ascii=False).encode()
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield from ((name, archive.read(name)) for name in archive.namelist())
    elif data[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar.getmembers():
                if opened := tar.extractfile(member):
                    yield member.name, opened.read()
    elif data[:3] == b"\x1f\x8b\x08":
        yield "gzip", gzip.decompress(data)
    elif data[:3] == b"BZh":
        yield "bzip2", bz2.decompress(data)
    elif data[:6] == b"\xfd7zXZ\x00":
        yield "xz", lzma.decompress(data)
    elif data[:4] == b"\x28\xb5\x2f\xfd":
        yield "zstd", pa.input_stream(pa.py_buffer(data), compression="zstd").read()
