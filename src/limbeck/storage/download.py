"""Objects on their way down: each file appears under its name only when it is whole and checked."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from limbeck.storage.failures import DAMAGED_TRIES, DamagedError, explained
from limbeck.storage.meter import Meter
from limbeck.storage.objects import StoredObject, sha256, verify
from limbeck.storage.wire import Answer, Wire
from limbeck.storage.workers import PART_BYTES, Part, Workers, parts_of

PIECE_BYTES = 1 << 20


class Incoming(NamedTuple):
    """An object and the file it becomes.

    Where the item has no sha256, that of the object's metadata is taken, which comes with the content.
    """

    item: StoredObject
    path: Path


def fetch_files(wire: Wire, files: Sequence[Incoming]) -> None:
    """Download objects, several at once.

    Raises:
        StorageError: when one is missing, unreachable or corrupt, or the disk is full.
    """
    meter = Meter("download", sum(file.item.bytes for file in files))
    for folder in {file.path.parent for file in files}:
        folder.mkdir(parents=True, exist_ok=True)
    with Workers() as workers:
        if len(files) == 1:
            _fetch(wire, workers, meter, files[0])
        else:
            workers.each(lambda file: _fetch(wire, workers, meter, file), files)


def _fetch(wire: Wire, workers: Workers, meter: Meter, file: Incoming) -> None:
    partial = file.path.with_name(file.path.name + ".part")
    try:
        with explained(file.item.uri, wire.endpoint or "AWS S3"):
            if file.item.bytes > PART_BYTES:
                _Large(wire, workers, meter, file.item, partial).fetch()
            else:
                _fetch_small(wire, workers, meter, file.item, partial)
            partial.rename(file.path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _fetch_small(wire: Wire, workers: Workers, meter: Meter, item: StoredObject, partial: Path) -> None:
    def get() -> bytes:
        answer = wire.get(item.uri, item.bytes)
        verify(answer.body, item.sha256 or _recorded(answer))
        return answer.body

    partial.write_bytes(wire.ask(item.uri, get, workers.stop))
    meter.add(item.bytes)


def _recorded(answer: Answer) -> str:
    """The sha256 that an object's writer left beside it; empty without one."""
    return answer.headers.get("x-amz-meta-sha256", "")


class _Large:
    """One object that comes in ranges."""

    def __init__(self, wire: Wire, workers: Workers, meter: Meter, item: StoredObject, partial: Path) -> None:
        self.wire, self.workers, self.meter, self.item, self.partial = wire, workers, meter, item, partial
        self.tag = ""
        """Which of all contents that had this name: a range of another one would not fit."""
        self.sha256 = item.sha256

    def fetch(self) -> None:
        """Write the file, hashing what comes on its way to the disk.

        Raises:
            DamagedError: when the object itself is not what was recorded.
        """
        digest = hashlib.sha256()
        with self.partial.open("wb+") as file:
            for data in self.workers.in_order(self._arrive, parts_of(self.item.bytes)):
                # In order, by one thread and in small pieces: large writes, and writers of one file at
                # several places, seemed to be slower on a busy disk: see docs/storage.md.
                for first in range(0, len(data), PIECE_BYTES):
                    piece = memoryview(data)[first : first + PIECE_BYTES]
                    file.write(piece)
                    digest.update(piece)
                del data, piece  # else they hold memory that is not counted until the next part is here
            file.flush()
            if self.sha256 in ("", digest.hexdigest()):
                return
            self._mend(file.fileno())
        got = sha256(self.partial)
        if got != self.sha256:
            raise DamagedError(f"sha256 {self.sha256[:12]}", f"{got[:12]} whenever it is asked")

    def _arrive(self, part: Part) -> bytes:
        data = self._get(part)
        self.meter.add(part.num_bytes)
        return data

    def _get(self, part: Part) -> bytes:
        def get() -> bytes:
            answer = self.wire.get(self.item.uri, part.num_bytes, part.first)
            tag = answer.headers.get("ETag", "")
            self.tag = self.tag or tag
            if tag != self.tag:
                raise DamagedError(f"ETag {self.tag}", tag)
            self.sha256 = self.sha256 or _recorded(answer)
            return answer.body

        return self.wire.ask(self.item.uri, get, self.workers.stop)

    def _mend(self, file: int) -> None:
        """Ask for every part again until two answers agree: what agrees is what the store holds.

        The sha256 of the whole does not say where a byte has changed, and no byte changes twice alike.
        """

        def mend(part: Part) -> None:
            had = os.pread(file, part.num_bytes, part.first)
            for _ in range(DAMAGED_TRIES):
                data = self._get(part)
                if data == had:
                    return
                os.pwrite(file, data, part.first)
                had = data
            raise DamagedError("twice the same bytes", f"others each time from byte {part.first} on")

        for _ in self.workers.in_order(mend, parts_of(self.item.bytes)):
            continue
