"""Leases: of all attempts of a stage, one at a time is at work below its prefix.

    {work_uri}/{stage}/{key}/lease.json                    who holds it; rewritten by conditional writes alone
    {work_uri}/{stage}/{key}/shards/0-of-4/lease.json      likewise, of one shard: see `limbeck.shards`

The holder renews it three times in its lifetime. A lease that was not renewed for that long, by the store's
own clock or by the patience of the one who waits, is taken over; whoever held it finds another ETag there
and stops. No two clocks are compared: what a holder says of the time is for people.

Shards of one number work side by side; shards of another number, and an attempt at the whole, do not. Whoever
begins takes its own lease first and looks at the others then, so of two that begin at once one sees the
other. It ends the leases of those that are dead, so that one that only seemed so finds its own gone.

A holder that was paused past the lifetime and finds that nobody took over goes on: the conditional write is
what decides, not the time.
"""

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from limbeck.errors import LeaseError, StorageError
from limbeck.progress import say
from limbeck.shards import SHARDS, WHOLE, Shard, shard_of
from limbeck.storage import Store

LEASE = "lease.json"
TTL_SECONDS = 60.0
"""How long a lease lasts without a renewal: two may fail, and a lost node costs a minute."""
UNKNOWN = "someone"
NUM_READERS = 16
"""Leases that are read at once: `merge` ends those of all shards."""


class Lease(BaseModel):
    """What `lease.json` holds. Written by the holder; read by other attempts, `gc` and `status`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    token: str = Field(default="", max_length=64)
    """Another one for each attempt."""
    name: str = Field(default=UNKNOWN, max_length=200)
    """What the attempt does: `generate(teacher)`."""
    host: str = Field(default="an unknown host", max_length=255)
    machine: str = Field(default="", max_length=200)
    """The boot of the kernel and the process namespace: where a pid has a meaning; empty if unknown."""
    pid: int = 0
    pid_started: str = Field(default="", max_length=32)
    """When the kernel started the process, as it counts: the same pid at another time is another process."""
    since: str = Field(default="an unknown time", max_length=64)
    """By the holder's clock: for people."""
    ttl_seconds: float = Field(default=TTL_SECONDS, gt=0, le=3600)
    renewals: int = 0
    state: Literal["held", "released", "finished"] = "held"
    """Finished: released after the stage's manifest was written."""
    rows_done: int = Field(default=0, ge=0)
    """Of a stage that makes rows: how many were done at the last renewal, by all attempts."""
    rows_total: int | None = Field(default=None, ge=0)
    """How many it makes, where it has told."""
    rows_per_second: float = Field(default=0.0, ge=0.0)
    """Of this attempt."""

    def __str__(self) -> str:
        """Who holds it."""
        return f"{self.name}, process {self.pid} on {self.host} since {self.since}"


class Held:
    """A lease that this process holds; see `held`."""

    def __init__(self, store: Store, uri: str, lease: Lease, etag: str) -> None:
        """Take over what `_take` has written."""
        self._store, self._address = store, f"{uri}/{LEASE}"
        self._lease, self._etag = lease, etag
        self._count = 0
        self._told: dict[str, float] = {}
        self._valid_until = time.monotonic() + lease.ttl_seconds
        self._lost = self._finished = False
        self._lock, self._ended = threading.Lock(), threading.Event()

    def check(self) -> None:
        """Return if the lease is still held; asks the store only when the renewals fell behind.

        Raises:
            LeaseError: when another attempt has taken it.
            StorageError: when the renewals fell behind and the store does not answer.
        """
        if not self._lost and time.monotonic() > self._valid_until:
            self._renew()
        if self._lost:
            raise self._loss()

    def confirm(self) -> None:
        """The same, but the store is always asked: for what cannot be taken back.

        Raises:
            LeaseError: when another attempt has taken it.
            StorageError: when the store does not answer.
        """
        self._renew()
        self.check()

    def tell(self, rows_done: int, rows_total: int, rows_per_second: float) -> None:
        """Note how far the work has come; the next renewal says so, and `status` shows it."""
        self._told = {
            "rows_done": rows_done,
            "rows_total": rows_total,
            "rows_per_second": round(rows_per_second, 3),
        }

    def finish(self) -> None:
        """Remember that the stage's manifest is written; those who wait for the lease are told."""
        self._finished = True

    def keep(self) -> None:
        """Renew until the end or the loss: the body of the thread that `held` starts."""
        while not self._lost and not self._ended.wait(self._lease.ttl_seconds / 3):
            with contextlib.suppress(
                StorageError
            ):  # the next renewal may succeed; `check` tells if none does
                self._renew()

    def release(self) -> None:
        """Give it back; a lease that is another's by now stays as it is.

        It is not deleted: that could not be made to depend on whose it is.
        """
        self._ended.set()
        with contextlib.suppress(StorageError):  # then it expires
            self._renew("finished" if self._finished else "released")

    def _renew(self, state: Literal["held", "released", "finished"] = "held") -> None:
        with self._lock:
            if self._lost or (self._ended.is_set() and state == "held"):
                return  # a renewal that comes late must not undo the release
            started = time.monotonic()
            self._count += 1  # never the same content twice: some servers make the ETag of it
            lease = self._lease.model_copy(update={"renewals": self._count, "state": state, **self._told})
            etag = _replace(self._store, self._address, lease, self._etag)
            if etag is None:
                self._lost = True
            else:
                self._etag, self._valid_until = etag, started + lease.ttl_seconds

    def _loss(self) -> LeaseError:
        holder = "an answer of the store that never came"
        with contextlib.suppress(StorageError):
            found = self._store.read_tagged(self._address)
            holder = str(_parse(found[0])) if found else "no lease: someone deleted it"
        return LeaseError(
            f"{self._lease.name} lost its lease to another attempt of the same stage",
            where=self._address,
            expected=str(self._lease),
            got=holder,
            remedy="This attempt stops and commits nothing. Let the other finish, or stop it and run again",
        )


def lease_root(uri: str) -> str:
    """The stage's prefix that a lease is of, or a shard's lease is below; empty for other objects."""
    folder, _, name = uri.rpartition("/")
    if name != LEASE:
        return ""
    return folder.rpartition(f"/{SHARDS}/")[0] if shard_of(folder) else folder


@contextmanager
def held(
    store: Store, uri: str, name: str, ttl_seconds: float = TTL_SECONDS, shard: Shard = WHOLE
) -> Iterator[Held]:
    """Hold the lease of a stage's prefix, or of one shard of it, while the block runs.

    The lease of a holder that has died is waited for, at most for its lifetime; not at all if that was a
    process of this machine, or if the store's clock says that its time is over.

    Args:
        store: Where the lease lies.
        uri: The stage's prefix.
        name: Who takes it, in messages: `generate(teacher)`.
        ttl_seconds: How long it lasts without a renewal.
        shard: Which shard's; shards of the same number do not exclude each other.

    Raises:
        LeaseError: when another attempt is at work there, also with another number of shards, or has finished
            while this one waited.
        StorageError: when the store does not answer.
    """
    pid = os.getpid()
    lease = Lease(
        token=secrets.token_hex(8),
        name=name[:200],
        host=socket.gethostname(),
        machine=_machine(),
        pid=pid,
        pid_started=_started(pid),
        since=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        ttl_seconds=ttl_seconds,
    )
    place = shard.place(uri)
    mine = Held(store, place, lease, _take(store, f"{place}/{LEASE}", lease))
    threading.Thread(target=mine.keep, name=f"lease of {name}", daemon=True).start()
    try:
        _end_others(store, uri, shard, lease)
        yield mine
    finally:
        mine.release()


def live(store: Store, uri: str) -> Lease | None:
    """The lease that an attempt at work may be holding at a prefix; None if there is none or it is over."""
    found = last(store, uri)
    return found[0] if found and found[1] else None


def last(store: Store, uri: str) -> tuple[Lease, bool] | None:
    """The lease of the last attempt at a prefix, and whether it may be at work; None if there was none."""
    found = store.read_tagged(f"{uri}/{LEASE}")
    if found is None:
        return None
    lease = _parse(found[0])
    age = store.age(f"{uri}/{LEASE}")
    return lease, lease.state == "held" and (age is None or age < lease.ttl_seconds)


def _end_others(store: Store, uri: str, shard: Shard, mine: Lease) -> None:
    """End the leases of dead attempts with another number of shards.

    Raises:
        LeaseError: when one of them is alive.
    """
    listed = store.sizes(f"{uri}/{SHARDS}")
    folders = [address.removesuffix(f"/{LEASE}") for address in listed if address.endswith(f"/{LEASE}")]
    others = [folder for folder in folders if (other := shard_of(folder)) and other.count != shard.count]
    if shard != WHOLE:
        others.append(uri)
    addresses = [f"{folder}/{LEASE}" for folder in others]
    with ThreadPoolExecutor(NUM_READERS) as pool:
        found = dict(zip(addresses, pool.map(store.read_tagged, addresses), strict=True))
    for address, lease in found.items():
        if lease and _parse(lease[0]).state == "held":
            _take(store, address, mine.model_copy(update={"state": "released"}))
    # Whoever held it finds it gone, and nobody reads it again.
    store.delete([address for address in addresses if found[address] and address != f"{uri}/{LEASE}"])


def _take(store: Store, address: str, mine: Lease) -> str:
    """Write the lease as soon as nobody else holds it; gives its ETag."""
    first, seen, told = "", 0.0, False
    while True:
        found = store.read_tagged(address)
        if found is None:
            etag = store.write_new(address, _data(mine)) or _if_mine(store, address, mine)
            if etag:
                return etag
            continue  # someone was faster: see who
        other, etag = _parse(found[0]), found[1]
        if etag != first:
            if first and other.state == "held":
                raise _refusal(address, "another attempt of the same stage is at work", other)
            if first and other.state == "finished":
                raise _refusal(address, "another attempt of the same stage has just finished it", other)
            first, seen = etag, time.monotonic()
        idle = max(store.age(address) or 0.0, time.monotonic() - seen)
        alive = _alive(other)
        if other.state != "held" or alive is False or idle >= other.ttl_seconds:
            if other.state == "held":
                why = "is dead" if alive is False else f"gave no sign for {idle:.0f} s"
                say(f"{mine.name}: takes over from {other}, which {why}")
            if taken := _replace(store, address, mine, etag):
                return taken
            continue
        if alive:
            raise _refusal(address, "another attempt of the same stage is at work", other)
        if not told:
            say(f"{mine.name}: waits up to {other.ttl_seconds - idle:.0f} s for a sign of {other}")
            told = True
        time.sleep(min(1.0, other.ttl_seconds / 10))


def _refusal(address: str, what: str, other: Lease) -> LeaseError:
    remedy = "Run again: it will be found complete" if other.state == "finished" else (
        f"Wait for it, or stop it and run again; if it dies, its lease ends after {other.ttl_seconds:.0f} s"
    )  # fmt: skip
    return LeaseError(what, where=address, got=str(other), remedy=remedy)


def _replace(store: Store, address: str, lease: Lease, etag: str) -> str | None:
    """Write over what an ETag stands for; the new ETag, or None when it is another's.

    A refusal may be the echo of a write of our own, whose answer was lost on the way.
    """
    new = store.replace(address, _data(lease), etag)
    if new is None and (current := _if_mine(store, address, lease)):
        return store.replace(address, _data(lease), current)
    return new


def _if_mine(store: Store, address: str, lease: Lease) -> str | None:
    """The ETag of what lies there, if this attempt wrote it."""
    found = store.read_tagged(address)
    return found[1] if found and _parse(found[0]).token == lease.token else None


def _data(lease: Lease) -> bytes:
    return lease.model_dump_json(indent=1).encode()


def _parse(data: bytes) -> Lease:
    """What lies there; something else than a lease counts as one of an unknown holder."""
    try:
        return Lease.model_validate_json(data)
    except ValidationError:
        return Lease()


def _alive(lease: Lease) -> bool | None:
    """Whether the process that wrote a lease is there; None where that cannot be known from here."""
    here = lease.machine == _machine() and lease.host == socket.gethostname()
    if not here or not lease.machine or not lease.pid_started:
        return None
    return _started(lease.pid) == lease.pid_started


def _machine() -> str:
    """What two processes share that see the same pids; empty where the kernel does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When the kernel started a process, in its ticks; empty when it is gone or dead."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return "" if fields[0] in ("Z", "X") else fields[19]
