"""What the stages have done below a work_uri, from the object store alone: no database, no cluster.

It takes one listing of the prefix and one small object for each manifest or training state. All of it may
have been written by others: what cannot be read is shown as broken, with the reason, and the rest goes on.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import datetime
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from limbeck.checkpoints import LATEST
from limbeck.errors import DataError
from limbeck.keys import fault
from limbeck.lease import LEASE, lease_root
from limbeck.manifest import MANIFEST, Manifest, parse
from limbeck.resources import Resources
from limbeck.rows import PART_NAME, listed_part
from limbeck.shard_status import ShardState, shard_states
from limbeck.storage import Listed, ObjectError, Store, StoredObject

STAGES = (*Resources.model_fields, "ablation", "export")
"""In pipeline order; last what `pipelines/ablation` adds (noisy labels, a page), and exports of pipelines."""
OUTPUTS = {
    "prepare": ("prompts", "heldout", "gold"),
    "label": ("labels", "labelled"),
    "ablation": ("labels", "teacher_labelled", "student_labelled"),
}
"""The stages with several outputs, each with a manifest of its own."""
THREADS = 8
MAX_BYTES = 32 << 20
"""A manifest of 100,000 objects has about this size; larger ones are not read."""
MAX_COUNTED_PARTS = 400
"""So many parts whose names do not tell their rows are asked for them, of the newest output first."""


class StageState(BaseModel):
    """One output of a stage. Its key hashes inputs, settings and code: where one differs, so does the key."""

    model_config = ConfigDict(frozen=True)

    stage: str
    key: str
    output: str
    """`prompts`, `heldout`, ... where a stage has several; else empty."""
    uri: str
    """Where the manifest lies, or will."""
    state: Literal["complete", "in progress", "started", "broken"]
    """In progress: finished parts, rows or a training state are there. Started: none of these."""
    reason: str = ""
    """Why it is broken."""
    modified: datetime
    """When the manifest was written; without one, the newest object."""
    bytes: int
    """Of the objects that the manifest lists; without one, of all that are there."""
    other_bytes: int = 0
    """Of objects that the manifest does not list: training states, parts of earlier attempts."""
    num_parts: int = 0
    """Finished parts of rows."""
    rows: int | None = None
    """In the manifest, or in the finished parts; None when they were not counted."""
    loose_rows: int = 0
    """Of an unfinished output: rows that are stored before their part is whole; at most so many, as a few of
    them may have come into a finished part since."""
    step: int | None = None
    """Updates done in the newest training state of an unfinished training."""
    holder: str = ""
    """Of an unfinished output: who is at work on it, by the lease; empty when nobody is, or shards are."""
    shards: tuple[ShardState, ...] = ()
    """Of an unfinished output: the tasks that share its rows, as far as their leases tell."""
    manifest: Manifest | None = None
    """None when there is none, or none that can be read."""

    @property
    def address(self) -> str:
        """The place below the work_uri: `label/1f9c04aa52b7c3d8/labels`."""
        return "/".join(name for name in (self.stage, self.key, self.output) if name)


class WorkState(BaseModel):
    """All outputs below a work_uri, in pipeline order; the newest first within a stage."""

    model_config = ConfigDict(frozen=True)

    work_uri: str
    num_objects: int
    """All below it, inputs and other things too."""
    bytes: int
    stages: tuple[StageState, ...]


class Place(NamedTuple):
    """Which output an object belongs to."""

    stage: str
    key: str
    output: str


class _Latest(BaseModel):
    """The pointer to the newest training state; see `limbeck.checkpoints.save_state`."""

    step: int = Field(ge=0)
    objects: tuple[StoredObject, ...]


def inspect(store: Store, work_uri: str, stage: str = "") -> WorkState:
    """Find out what the stages have done.

    Args:
        store: Where to look.
        work_uri: Prefix of all results.
        stage: Look at this one alone; empty for all.

    Raises:
        StorageError: when the store cannot be used, or there is no such bucket.
    """
    base = work_uri.rstrip("/")
    listing = store.listing(f"{base}/{stage}" if stage else base)
    places = by_place(listing, base)
    with ThreadPoolExecutor(THREADS) as pool:
        states = list(pool.map(lambda place: state_of(store, base, place, places[place]), places))
        leases = _leases(listing)
        states = [_with_shards(store, base, state, leases, pool) for state in states]
        rows, unknown = _counted(dict(zip(places, states, strict=True)), places)
        for uri, number in zip(unknown, pool.map(lambda uri: _rows(store, uri), unknown), strict=True):
            rows[uri.rpartition("/")[0]] += number
    counted = [
        state.model_copy(update={"rows": rows[state.uri]}) if state.uri in rows else state for state in states
    ]
    return WorkState(
        work_uri=base,
        num_objects=len(listing),
        bytes=sum(item.bytes for item in listing.values()),
        stages=tuple(_in_order(counted)),
    )


def by_place(listing: Mapping[str, Listed], base: str) -> dict[Place, dict[str, Listed]]:
    """The objects of each output, by their names below it; without leases and what no stage has written."""
    places: dict[Place, dict[str, Listed]] = {}
    for uri, item in listing.items():
        stage, _, rest = uri.removeprefix(f"{base}/").partition("/")
        key, _, name = rest.partition("/")
        output, _, inner = name.partition("/")
        if stage not in STAGES or not name or lease_root(uri):
            continue
        if inner and output in OUTPUTS.get(stage, ()):
            places.setdefault(Place(stage, key, output), {})[inner] = item
        else:
            places.setdefault(Place(stage, key, ""), {})[name] = item
    return places


def state_of(store: Store, base: str, place: Place, objects: Mapping[str, Listed]) -> StageState:
    """What is known of one output."""
    uri = "/".join((base, *(name for name in place if name)))
    known = StageState(
        **place._asdict(),
        uri=uri,
        state="started",
        modified=max(item.modified for item in objects.values()),
        bytes=sum(item.bytes for item in objects.values()),
        num_parts=len(_parts(objects)),
        loose_rows=0 if MANIFEST in objects else _loose_rows(objects),
    )
    refused = next((name for name in objects if fault(f"{place.key}/{name}")), None)
    try:
        if refused is not None:  # no stage goes on beside it
            raise DataError("an object with a forbidden name", got=f"{refused!r}")
        if MANIFEST in objects:
            return _with_manifest(store, known, objects)
        if LATEST in objects:
            known = known.model_copy(update={"step": latest_step(store, uri, objects)})
    except (DataError, ObjectError) as error:
        return known.model_copy(update={"state": "broken", "reason": str(error)})
    going = known.num_parts > 0 or known.loose_rows > 0 or known.step is not None
    return known.model_copy(update={"state": "in progress" if going else "started"})


def _leases(listing: Mapping[str, Listed]) -> dict[str, list[str]]:
    """The folders of leases by the stage's prefix that they are of, the one written last first."""
    found: dict[str, list[str]] = {}
    for uri in sorted(listing, key=lambda uri: listing[uri].modified, reverse=True):
        root = lease_root(uri)
        if root and not fault(root.partition("://")[2].partition("/")[2]):
            found.setdefault(root, []).append(uri.removesuffix(f"/{LEASE}"))
    return found


def _with_shards(
    store: Store, base: str, state: StageState, leases: Mapping[str, Sequence[str]], pool: Executor
) -> StageState:
    """The state of an unfinished output, with who is at work on it."""
    root = f"{base}/{state.stage}/{state.key}"
    if state.state == "complete" or root not in leases:
        return state
    shards = shard_states(store, leases[root], pool)
    holder = shards[0].holder if len(shards) == 1 else ""
    told = [shard for shard in shards if shard.expected is not None or len(shards) > 1]
    return state.model_copy(update={"holder": holder, "shards": tuple(told)})


def _with_manifest(store: Store, known: StageState, objects: Mapping[str, Listed]) -> StageState:
    """The state of an output that has a manifest.

    Raises:
        DataError: when it cannot be read.
        ObjectError: when it is gone by now, or corrupt.
    """
    where = f"{known.uri}/{MANIFEST}"
    manifest = parse(_read(store, where, objects[MANIFEST]), where)
    reason = _mismatch(manifest, known, objects)
    size = sum(item.bytes for item in manifest.objects)
    return known.model_copy(
        update={
            "state": "broken" if reason else "complete",
            "reason": reason,
            "modified": objects[MANIFEST].modified,
            "bytes": size,
            "other_bytes": max(0, known.bytes - size - objects[MANIFEST].bytes),
            "rows": manifest.num_rows,
            "manifest": manifest,
        }
    )


def _mismatch(manifest: Manifest, known: StageState, objects: Mapping[str, Listed]) -> str:
    """What keeps a manifest from being complete where it lies; empty when nothing does."""
    if manifest.stage != known.stage:
        return f"the manifest is of stage {manifest.stage}"
    if manifest.uri.partition("://")[2] != known.uri.partition("://")[2]:
        return f"the manifest is of {manifest.uri}"
    for item in manifest.objects:
        name = item.uri.removeprefix(f"{manifest.uri}/")
        if name not in objects:
            return f"{name} is gone"
        if objects[name].bytes != item.bytes:
            return f"{name} has {objects[name].bytes} bytes, not {item.bytes}"
    return ""


def latest_step(store: Store, uri: str, objects: Mapping[str, Listed]) -> int:
    """The step of the newest training state.

    Raises:
        DataError: when its pointer cannot be read, or names what is not there.
        ObjectError: when it is gone by now, or corrupt.
    """
    where = f"{uri}/{LATEST}"
    remedy = "Delete it, and the training starts anew"
    try:
        latest = _Latest.model_validate_json(_read(store, where, objects[LATEST]))
    except ValidationError as error:
        got = error.errors()[0]["msg"]
        raise DataError("not a pointer to a training state", where=where, got=got, remedy=remedy) from error
    for item in latest.objects:
        found = objects.get(item.uri.removeprefix(f"{uri}/"))
        if found is None or found.bytes != item.bytes:
            raise DataError("a training state that is not whole", where=item.uri, remedy=remedy)
    return latest.step


def _read(store: Store, uri: str, listed: Listed) -> str:
    """A small text.

    Raises:
        DataError: when it is too large, or no text.
        ObjectError: when it is gone by now, or corrupt.
    """
    if listed.bytes > MAX_BYTES:
        raise DataError("too large", where=uri, expected=f"at most {MAX_BYTES} bytes", got=str(listed.bytes))
    try:
        return store.read_bytes(uri).decode()
    except UnicodeDecodeError as error:
        raise DataError("not text", where=uri, got=str(error)) from error


def _parts(objects: Iterable[str]) -> list[str]:
    """The names of finished parts; those of rows set aside are none."""
    return [name for name in objects if name.startswith("part-") and PART_NAME.fullmatch(f"/{name}")]


def _loose_rows(objects: Iterable[str]) -> int:
    """The rows in loose parts, without those that were set aside; see `limbeck.shelf`."""
    names = [name.rpartition("/")[2] for name in objects]
    loose = [name for name in names if name.startswith("loose-") and not name.startswith("loose-rejected-")]
    return sum(item.rows for name in loose if (item := listed_part(f"/{name}", 0)))


def _counted(
    states: Mapping[Place, StageState], places: Mapping[Place, Mapping[str, Listed]]
) -> tuple[Counter[str], list[str]]:
    """The rows of unfinished outputs as the names of their parts tell, and the parts to ask for theirs."""
    unfinished = [item for item in states.items() if item[1].state == "in progress"]
    rows: Counter[str] = Counter()
    unknown: list[str] = []
    for place, state in sorted(unfinished, key=lambda item: item[1].modified, reverse=True):
        names = _parts(places[place])
        listed = [listed_part(f"/{name}", 0) for name in names]
        asked = [f"{state.uri}/{name}" for name, item in zip(names, listed, strict=True) if item is None]
        if names and len(unknown) + len(asked) <= MAX_COUNTED_PARTS:
            rows[state.uri] = sum(item.rows for item in listed if item is not None)
            unknown += asked
    return rows, unknown


def _rows(store: Store, uri: str) -> int:
    """The rows of a part, 0 if it is gone by now."""
    item = store.stored(uri)
    return item.rows if item else 0


def _in_order(states: Iterable[StageState]) -> list[StageState]:
    """Pipeline order, newest key first within a stage; the outputs of one key stay together."""
    states = list(states)
    newest: dict[tuple[str, str], float] = {}
    for state in states:
        key = (state.stage, state.key)
        newest[key] = max(newest.get(key, 0.0), state.modified.timestamp())

    def place(state: StageState) -> tuple[int, float, str, int]:
        outputs = ("", *OUTPUTS.get(state.stage, ()))
        return (
            STAGES.index(state.stage),
            -newest[state.stage, state.key],
            state.key,
            outputs.index(state.output),
        )

    return sorted(states, key=place)
