"""The clients that `bench.storage` compares, each in a process of its own.

`python -m bench.storage_clients CLIENT up|down FOLDER URI` is one of those that are Python: it prints the
seconds of the transfer, without the start of the interpreter, which a stage has behind it. Programs are timed
whole.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
from boto3.s3.transfer import TransferConfig
from pydantic import TypeAdapter

from limbeck.storage import Store, StoredObject, sha256, split

BLOCK_BYTES = 1 << 20
NUM_TRANSFERS = "16"
CRT = "boto3 with CRT"
"""Needs the package awscrt, which only `make bench-storage` installs."""
LISTED = TypeAdapter(tuple[StoredObject, ...])


def limbeck(way: str, folder: Path, uri: str) -> None:
    """`Store.write_folder` and `Store.read_folder`: sha256 both ways, files appear when checked."""
    store = Store()
    if way == "up":
        objects = store.write_folder(folder, uri)
        store.write_bytes(f"{uri}.json", LISTED.dump_json(objects))  # as a stage's manifest does
        return
    objects = LISTED.validate_json(store.read_bytes(f"{uri}.json"))
    store.read_folder(objects, objects[0].uri.rpartition("/")[0], folder)


def sequential(way: str, folder: Path, uri: str) -> None:
    """Plain boto3, one file after another, unverified; large files in parts by its own threads."""
    bucket, prefix = split(uri)
    client = boto3.client("s3")
    if way == "up":
        for path in sorted(folder.iterdir()):
            client.upload_file(str(path), bucket, f"{prefix}/{path.name}")
        return
    for found in Store().listing(uri):
        client.download_file(bucket, split(found)[1], str(folder / found.rpartition("/")[2]))


def crt(way: str, folder: Path, uri: str) -> None:
    """boto3's transfer by the AWS Common Runtime, 16 files at once, unverified."""
    bucket, prefix = split(uri)
    client, settings = boto3.client("s3"), TransferConfig(preferred_transfer_client="crt")

    def send(path: Path) -> None:
        client.upload_file(str(path), bucket, f"{prefix}/{path.name}", Config=settings)

    def fetch(key: str) -> None:
        client.download_file(bucket, key, str(folder / key.rpartition("/")[2]), Config=settings)

    with ThreadPoolExecutor(int(NUM_TRANSFERS)) as pool:
        if way == "up":
            list(pool.map(send, folder.iterdir()))
        else:
            list(pool.map(fetch, [split(found)[1] for found in Store().listing(uri)]))


def ceiling(way: str, folder: Path, uri: str) -> None:
    """No store: the files through one socket of loopback, up into nothing and down onto the disk."""
    ours, theirs = socket.create_server(("127.0.0.1", 0)), socket.socket()
    theirs.connect(ours.getsockname())
    receiving = ours.accept()[0]
    files = sorted(Path(uri).iterdir())

    def send() -> None:
        for path in files:
            with path.open("rb") as file:
                theirs.sendfile(file)

    thread = threading.Thread(target=send)
    thread.start()
    block = memoryview(bytearray(BLOCK_BYTES))
    for path in files:
        left = path.stat().st_size
        with (folder / path.name if way == "down" else Path(os.devnull)).open("wb", buffering=0) as file:
            while left:
                count = receiving.recv_into(block[: min(left, BLOCK_BYTES)])
                file.write(block[:count])
                left -= count
    thread.join()


PYTHON: dict[str, Callable[[str, Path, str], None]] = {
    "limbeck": limbeck,
    "boto3, one after another": sequential,
    CRT: crt,
    "socket and disk alone": ceiling,
}
PROGRAMS = ("s5cmd", "rclone")


def command(client: str, way: str, folder: Path, uri: str, tools: Path) -> list[str]:
    """What runs one transfer of a folder of files without subfolders."""
    if client in PYTHON:
        return [sys.executable, "-m", "bench.storage_clients", client, way, str(folder), uri]
    if client == "rclone":  # compares MD5 after each file
        remote = "bench:" + "/".join(split(uri))
        places = [str(folder), remote] if way == "up" else [remote, str(folder)]
        options = ["--transfers", NUM_TRANSFERS, "--checkers", NUM_TRANSFERS, "--s3-chunk-size", "8Mi"]
        options += ["--s3-upload-concurrency", "4", "--multi-thread-streams", "4", "--s3-no-check-bucket"]
        return [str(tools / "rclone"), "copy", "--quiet", "--no-traverse", *options, *places]
    places = [f"{folder}/", f"{uri}/"] if way == "up" else [f"{uri}/*", f"{folder}/"]
    options = ["--endpoint-url", os.environ["AWS_ENDPOINT_URL"], "--numworkers", NUM_TRANSFERS]
    return [str(tools / "s5cmd"), *options, "--log", "error", "cp", "--concurrency", "4", *places]


def variables(client: str, tools: Path) -> dict[str, str]:
    """The environment of a client. Only that of the CRT finds awscrt, which changes boto3 for all."""
    remote = {"TYPE": "s3", "PROVIDER": "SeaweedFS", "ENV_AUTH": "true", "REGION": "us-east-1"}
    remote["ENDPOINT"] = os.environ["AWS_ENDPOINT_URL"]
    added = {f"RCLONE_CONFIG_BENCH_{name}": value for name, value in remote.items()}
    if client == CRT:
        added["PYTHONPATH"] = str(next(tools.parent.glob("lib/python3*/site-packages")))
    return dict(os.environ) | added


def hash_all(folder: Path) -> float:
    """Seconds that the usual program needs for the sha256 of a folder's files, on two cores."""
    start = time.perf_counter()
    names = "\0".join(str(path) for path in folder.iterdir())
    subprocess.run(
        ["xargs", "-0", "-n", "4", "-P", "2", "sha256sum"],  # noqa: S607 - on every Linux
        input=names.encode(),
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - start


def same_files(first: Path, second: Path) -> bool:
    """Whether two folders hold the same files."""
    hashes = ({path.name: sha256(path) for path in folder.iterdir()} for folder in (first, second))
    return next(hashes) == next(hashes)


if __name__ == "__main__":
    name, direction, place, address = sys.argv[1:]
    started = time.perf_counter()
    PYTHON[name](direction, Path(place), address)
    print(f"seconds {time.perf_counter() - started:.3f}")
