"""Manifests of many parts: `python -m bench.manifests [--parts 10000] [--rows 1000000]`.

Parts are put into an embedded SeaweedFS (all of them hold the same few kB: contents are not read). Then
a process of its own plans a resume, writes the manifest and verifies it, and shows time and peak memory.

The second table is a simulation of a tree of manifests, for rows beyond one manifest: the leaves are
manifests of as many parts, the root is a manifest that lists the leaves. Their listings are made up in
memory, so its times hold no network and no XML.
"""

import argparse
import hashlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from limbeck import lease, seaweed
from limbeck.manifest import MANIFEST, Manifest, commit, find
from limbeck.rows import finished_parts
from limbeck.storage import Store, StoredObject

CONTENT = b"x" * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WORK_URI = "s3://bench/work/generate"
THREADS = 8
Result = TypeVar("Result")
LEAVES_SHOWN = (1, 10, 100)


class MadeUp(Store):
    """A store that lists the parts of a leaf and remembers small objects; nothing is sent anywhere."""

    def __init__(self, num_parts: int, rows_per_part: int) -> None:
        """Say what each leaf holds."""
        super().__init__()
        self.num_parts, self.rows_per_part = num_parts, rows_per_part
        self.written: dict[str, bytes] = {}

    def exists(self, uri: str) -> bool:
        """Whether it was written here."""
        return uri in self.written

    def read_bytes(self, uri: str) -> bytes:
        """What was written here."""
        return self.written[uri]

    def write_new(self, uri: str, data: bytes) -> str | None:
        """Keep one object."""
        if uri in self.written:
            return None
        self.written[uri] = data
        return "etag"

    def sizes(self, prefix_uri: str) -> dict[str, int]:
        """The parts of a leaf; below the root, what was written."""
        if prefix_uri == WORK_URI:
            return {uri: len(data) for uri, data in self.written.items()}
        return {part_uri(prefix_uri, n, self.rows_per_part): len(CONTENT) for n in range(self.num_parts)}


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--leaves", type=int, default=1000, help="of the simulated tree")
    parser.add_argument("--only", choices=("measure", "simulate"), help="one part, in this process")
    asked = parser.parse_args()
    rows_per_part = asked.rows // asked.parts
    if asked.only == "measure":
        measure(asked.parts, rows_per_part)
    elif asked.only == "simulate":
        simulate(asked.parts, rows_per_part, asked.leaves)
    else:
        given = [f"--parts={asked.parts}", f"--rows={asked.rows}", f"--leaves={asked.leaves}"]
        with TemporaryDirectory() as folder, seaweed.serve(Path(folder)) as store:
            fill(store, f"{WORK_URI}/0000", asked.parts, rows_per_part)
            in_its_own_process("measure", given)
        in_its_own_process("simulate", given)


def in_its_own_process(part: str, given: list[str]) -> None:
    """Run one part where nothing else has used memory."""
    subprocess.run([sys.executable, "-m", "bench.manifests", "--only", part, *given], check=True)


def part_uri(uri: str, number: int, rows: int) -> str:
    """The name that `limbeck.rows` gives to a part."""
    return f"{uri}/part-{number:05d}-{rows}-{SHA256}.parquet"


def fill(store: Store, uri: str, num_parts: int, rows_per_part: int) -> None:
    """Write the parts."""
    store.make_bucket(uri)
    with ThreadPoolExecutor(THREADS) as pool:
        names = [part_uri(uri, number, rows_per_part) for number in range(num_parts)]
        list(pool.map(lambda name: store.write_bytes(name, CONTENT), names))


def measure(num_parts: int, rows_per_part: int) -> None:
    """One manifest of all parts, as the stages do it."""
    store, uri = Store(), f"{WORK_URI}/0000"
    print(f"| {num_parts:,} parts, {num_parts * rows_per_part:,} rows | seconds | peak MiB |", flush=True)
    print("|:--|--:|--:|", flush=True)
    started = time.monotonic()
    with lease.held(store, uri, "bench") as held:
        parts = timed("plan a resume: which parts are finished", lambda: finished_parts(store, uri))
        made = timed("write the manifest", lambda: commit(store, manifest(uri, parts.values()), held))
    found = timed("verify it: read it, list all objects", lambda: find(store, uri))
    if found != made or found.num_rows != num_parts * rows_per_part:
        sys.exit("the manifest that was found is not the one that was written")
    size = len(made.to_json()) / 2**20
    row(f"all of these; the manifest has {size:.1f} MiB", time.monotonic() - started)


def simulate(num_parts: int, rows_per_part: int, num_leaves: int) -> None:
    """A root that lists leaves: each leaf is planned, written and verified, and then forgotten."""
    store = MadeUp(num_parts, rows_per_part)
    print(f"\n| tree of {num_parts:,} parts a leaf | seconds | peak MiB |", flush=True)
    print("|:--|--:|--:|", flush=True)
    started, leaves, total_bytes = time.monotonic(), list[StoredObject](), 0
    for number in range(num_leaves):
        uri = f"{WORK_URI}/{number:04d}"
        made = commit(store, manifest(uri, finished_parts(store, uri).values()))
        if find(store, uri) != made:
            sys.exit("a leaf is not what was written")
        data = store.written.pop(f"{uri}/{MANIFEST}")  # it lies in the store, not in memory
        leaves.append(
            StoredObject(
                uri=f"{uri}/{MANIFEST}",
                bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                rows=made.num_rows,
            )
        )
        total_bytes += len(data)
        if number + 1 in {*LEAVES_SHOWN, num_leaves}:
            rows = sum(leaf.rows for leaf in leaves)
            row(f"{number + 1:,} leaves, {rows:,} rows", time.monotonic() - started)
    root = manifest(WORK_URI, leaves)
    started = time.monotonic()
    if commit(store, root).num_rows != num_leaves * num_parts * rows_per_part:
        sys.exit("the root does not hold all rows")
    size = len(root.to_json()) / 1024
    row(f"the root: {size:,.0f} KiB; all leaves: {total_bytes / 2**20:,.0f} MiB", time.monotonic() - started)


def manifest(uri: str, objects: Iterable[StoredObject]) -> Manifest:
    """A manifest of `generate`."""
    listed = tuple(objects)
    return Manifest(
        stage="generate",
        kind="completions",
        name="teacher",
        uri=uri,
        objects=listed,
        inputs={},
        config_hash="",
        code_version="",
        num_rows=sum(item.rows for item in listed),
    )


def timed(what: str, work: Callable[[], Result]) -> Result:
    """Do it and print its line."""
    started = time.monotonic()
    result = work()
    row(what, time.monotonic() - started)
    return result


def row(what: str, seconds: float) -> None:
    """One line of the table, with the peak of resident memory so far."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    print(f"| {what} | {seconds:.1f} | {int(status.split('VmHWM:')[1].split()[0]) / 1024:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
