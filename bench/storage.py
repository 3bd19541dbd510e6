"""Transfers of folders, beside those of other clients: `make bench-storage`.

Each round starts an embedded SeaweedFS with empty folders on loopback; in it, every client in a random
order uploads a checkpoint of 2 GiB in 8 files and 5,000 files of 64 KiB, and downloads them again. What
came back is compared with what went, outside of the time. The table has medians over the rounds; a client
that fails is named below it.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bench.storage_clients import CRT, PROGRAMS, PYTHON, command, hash_all, same_files, variables
from limbeck import seaweed

MIB = 1 << 20
BUCKET = "s3://bench"
ALONE = set(PYTHON) - {CRT}
"""The clients that need no tools."""


class Measured(NamedTuple):
    """One transfer."""

    client: str
    data: str
    way: str
    seconds: float
    cpu_seconds: float
    """Of the client alone; the server's are not in it."""
    peak_mib: float
    """Of resident memory; not less than that of this process, which the kernel counts before `exec`."""


def main() -> None:
    """Measure; print a table, and write the single figures as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large-mib", type=int, default=2048, help="size of the checkpoint, in 8 files")
    parser.add_argument("--small-files", type=int, default=5000, help="files of 64 KiB")
    parser.add_argument(
        "--tools",
        type=Path,
        help="folder of the programs s5cmd and rclone, beside awscrt; none: without them",
    )
    parser.add_argument("--work", type=Path, help="folder on the disk to use (default: the temporary one)")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rng = random.Random(1)  # noqa: S311 - no secrets
    measured: list[Measured] = []
    failures: list[str] = []
    with TemporaryDirectory(dir=asked.work) as work:
        data = {
            "checkpoint": _make(Path(work) / "checkpoint", 8, asked.large_mib * MIB // 8, rng),
            "small files": _make(Path(work) / "small", asked.small_files, 64 << 10, rng),
        }
        for number in range(asked.rounds):
            folder = Path(work) / f"round{number}"
            with seaweed.serve(folder) as store:
                store.make_bucket(BUCKET)
                for name, source in data.items():
                    clients = [name for name in (*PYTHON, *PROGRAMS) if asked.tools or name in ALONE]
                    for client in rng.sample(clients, len(clients)):
                        try:
                            measured += _measure(client, name, source, folder, asked.tools or Path())
                        except subprocess.CalledProcessError as error:
                            failures.append(f"round {number + 1}, {name}: {client} failed, {error}")
            shutil.rmtree(folder)
    print(table(measured), *failures, sep="\n")
    if asked.json:
        asked.json.write_text(json.dumps([item._asdict() for item in measured], indent=1), encoding="utf-8")


def _make(folder: Path, num_files: int, num_bytes: int, rng: random.Random) -> Path:
    folder.mkdir()
    for number in range(num_files):
        with (folder / f"{number:05d}.bin").open("wb") as file:
            for first in range(0, num_bytes, MIB):
                file.write(rng.randbytes(min(MIB, num_bytes - first)))
    return folder


def _measure(client: str, data: str, source: Path, work: Path, tools: Path) -> list[Measured]:
    """One client's way up and down; s5cmd's also with a check of its own, as it makes none."""
    uri = f"{BUCKET}/{client.replace(' ', '-').replace(',', '')}/{data.replace(' ', '-')}"
    measured = []
    with TemporaryDirectory(dir=work) as back:
        for way, folder in (("up", source), ("down", Path(back))):
            os.sync()  # so that no one writes the bytes of another
            address = str(source) if client == "socket and disk alone" else uri
            item = Measured(
                client, data, way, *_run(client, command(client, way, folder, address, tools), tools)
            )
            print(*item, file=sys.stderr, flush=True)
            measured.append(item)
            if client == "s5cmd":
                name = "s5cmd + sha256sum"
                measured.append(item._replace(client=name, seconds=item.seconds + hash_all(folder)))
        if not same_files(source, Path(back)):
            raise SystemExit(f"{client} brought other files back")
    return measured


def _run(client: str, arguments: Sequence[str], tools: Path) -> tuple[float, float, float]:
    """Seconds, CPU seconds and peak MiB of a process."""
    start = time.perf_counter()
    process = subprocess.Popen(arguments, env=variables(client, tools), stdout=subprocess.PIPE, text=True)
    out = process.stdout.read() if process.stdout else ""
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), arguments[:4])
    said = [line.split()[1] for line in out.splitlines() if line.startswith("seconds ")]
    return float(said[0]) if said else seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def table(measured: Sequence[Measured]) -> str:
    """Medians as Markdown."""
    groups: dict[tuple[str, str, str], list[Measured]] = {}
    for item in measured:
        groups.setdefault((item.data, item.way, item.client), []).append(item)
    lines = ["| data | way | client | seconds | lowest to highest | CPU seconds | peak MiB |"]
    lines.append("|:--|:--|:--|--:|--:|--:|--:|")
    for (data, way, client), items in sorted(groups.items()):
        seconds = [item.seconds for item in items]
        cpu = statistics.median(item.cpu_seconds for item in items)
        peak = max(item.peak_mib for item in items)
        span = f"{min(seconds):.2f} to {max(seconds):.2f}"
        lines.append(
            f"| {data} | {way} | {client} | {statistics.median(seconds):.2f} | {span} "
            f"| {cpu:.1f} | {peak:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
