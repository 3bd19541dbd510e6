"""What below a work_uri is garbage, and why; `limbeck.gc` removes it.

Never garbage: what any manifest lists, anything below a live lease, and what is not known to be Limbeck's.
Unfinished work has an age limit.
"""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Literal, NamedTuple, get_args

from limbeck import lease
from limbeck.checkpoints import LATEST
from limbeck.config import Dtype
from limbeck.errors import DataError
from limbeck.keys import fault
from limbeck.lease import LEASE
from limbeck.manifest import MANIFEST, Manifest, digest, parse
from limbeck.shards import shard_of
from limbeck.sources import file_hash, folder_hash
from limbeck.sources.files import is_data
from limbeck.status import MAX_BYTES, STAGES, THREADS, Place, StageState, by_place, latest_step, state_of
from limbeck.storage import Listed, ObjectError, Store, Upload

Why = Literal[
    "not in the manifest",
    "old training state",
    "lease that is over",
    "unfinished and left",
    "training state, unfinished and left",
    "abandoned upload",
    "probe of preflight",
    "input of no manifest",
]
UNFINISHED: tuple[Why, ...] = ("unfinished and left", "training state, unfinished and left")
INPUTS, PROBES = "inputs", "preflight"
"""Where `limbeck run` puts local files, and `limbeck preflight` what it tries."""


@dataclass(frozen=True)
class Policy:
    """What counts as garbage."""

    older_than: timedelta = timedelta(days=7)
    """Younger uploads, probes, inputs and unfinished work stay."""
    keep_states: int = 1
    """So many training states stay beside a finished checkpoint, the newest."""
    unfinished_states: bool = False
    """Whether training states without a finished checkpoint may go: their training starts anew."""
    inputs: bool = False
    """Whether inputs that no manifest was made from may go."""


class Garbage(NamedTuple):
    """One object, or one unfinished upload."""

    root: str
    """The stage's prefix, the folder of inputs, or the folder of probes."""
    uri: str
    why: Why
    bytes: int
    """Of an upload: of the parts that it has."""
    modified: datetime
    upload: Upload | None = None


class Found(NamedTuple):
    """What a look at a work_uri gave."""

    garbage: tuple[Garbage, ...]
    kept: dict[str, str]
    """What is left alone as a whole, by its prefix, and why."""


class _Seen(NamedTuple):
    """A listing, and what it means."""

    base: str
    now: datetime
    listing: Mapping[str, Listed]
    places: Mapping[Place, Mapping[str, Listed]]
    states: Mapping[Place, StageState]
    live: Mapping[str, lease.Lease]
    """By the stage's prefix."""
    listed: frozenset[str]
    """Bucket and key of all that manifests list, and of manifests that lie where no stage writes any."""
    inputs: frozenset[str]
    """The hashes of all that manifests were made from."""


def find_garbage(store: Store, work_uri: str, policy: Policy) -> Found:
    """Look for garbage; nothing is changed.

    Raises:
        StorageError: when the store cannot be used.
    """
    base = work_uri.rstrip("/")
    listing = store.listing(base)
    seen = _look(store, base, listing, _now(store, listing))
    garbage = [*_of_stages(store, seen, policy), *_probes(seen, policy), *_uploads(store, seen, policy)]
    kept = {uri: f"held by {holder}" for uri, holder in seen.live.items()}
    for state in seen.states.values():
        if state.state == "broken" and state.manifest is None:
            kept.setdefault(state.uri, state.reason)
    if policy.inputs:
        unfinished = [state.uri for state in seen.states.values() if state.state != "complete"]
        if unfinished or seen.live:
            kept[f"{base}/{INPUTS}"] = f"unfinished stages may use them: {(unfinished or [*seen.live])[0]}"
        else:
            garbage += _inputs(store, seen, policy)
    return Found(tuple(_unlisted(garbage, seen)), kept)


def find_below(store: Store, work_uri: str, root: str, policy: Policy) -> list[Garbage]:
    """The garbage of one stage's prefix, for who holds its lease.

    Raises:
        StorageError: when the store cannot be used.
    """
    listing = store.listing(root)
    seen = _look(store, work_uri.rstrip("/"), listing, _now(store, listing))
    return list(_unlisted(_of_stages(store, seen._replace(live={}), policy), seen))


def _now(store: Store, listing: Mapping[str, Listed]) -> datetime:
    """The store's clock, or the newest of its times: no other is compared with the ages of objects."""
    newest = max(filter(_addressable, listing), key=lambda uri: listing[uri].modified, default=None)
    if newest is None:
        return datetime.now(UTC)
    return listing[newest].modified + timedelta(seconds=store.age(newest) or 0.0)


def _look(store: Store, base: str, listing: Mapping[str, Listed], now: datetime) -> _Seen:
    """Read what the listing leads to: manifests, training states, leases."""
    places = by_place(listing, base)
    own = {"/".join((base, *filter(None, place), MANIFEST)) for place in places}
    places_of_leases = [uri.removesuffix(f"/{LEASE}") for uri in listing if _is_lease(uri, base)]
    elsewhere = [
        uri
        for uri, item in listing.items()
        if uri.endswith(f"/{MANIFEST}")
        and not shard_of(uri.removesuffix(f"/{MANIFEST}"))  # it is over with the whole
        and uri not in own
        and item.bytes <= MAX_BYTES
        and _addressable(uri)
    ]
    with ThreadPoolExecutor(THREADS) as pool:
        states = dict(
            zip(
                places,
                pool.map(lambda place: state_of(store, base, place, places[place]), places),
                strict=True,
            )
        )
        others = dict(zip(elsewhere, pool.map(lambda uri: _manifest(store, uri), elsewhere), strict=True))
        leases = list(pool.map(lambda place: lease.live(store, place), places_of_leases))
    manifests = [state.manifest for state in states.values() if state.manifest]
    found = {uri: item for uri, item in others.items() if item is not None}
    manifests += found.values()
    return _Seen(
        base,
        now,
        listing,
        places,
        states,
        {
            lease.lease_root(f"{place}/{LEASE}"): holder
            for place, holder in zip(places_of_leases, leases, strict=True)
            if holder is not None
        },
        frozenset(map(_key, [*found, *(item.uri for manifest in manifests for item in manifest.objects)])),
        frozenset(value for manifest in manifests for value in manifest.inputs.values()),
    )


def _of_stages(store: Store, seen: _Seen, policy: Policy) -> Iterator[Garbage]:
    """What the stages left behind."""
    finished: dict[str, bool] = {}
    for place, state in seen.states.items():
        root = f"{seen.base}/{place.stage}/{place.key}"
        finished[root] = finished.get(root, True) and state.state == "complete"
        if root in seen.live:
            continue
        objects = seen.places[place]
        kept = {item.uri.removeprefix(f"{state.manifest.uri}/") for item in state.manifest.objects} if (
            state.manifest
        ) else set()  # fmt: skip
        if state.state == "complete":
            kept |= _kept_states(store, state, objects, policy.keep_states)
        elif not _is_left(state, objects, seen, policy):
            continue
        for name, item in objects.items():
            why = _why(name, complete=state.state == "complete")
            if name in kept or name == MANIFEST:
                continue
            if why != "training state, unfinished and left" or policy.unfinished_states:
                yield Garbage(root, f"{state.uri}/{name}", why, item.bytes, item.modified)
    for uri, item in seen.listing.items():
        root = lease.lease_root(uri)
        if _is_lease(uri, seen.base) and root not in seen.live:
            over = finished[root] if root in finished else _is_old(item.modified, seen, policy)
            if over:
                yield Garbage(root, uri, "lease that is over", item.bytes, item.modified)


def _why(name: str, *, complete: bool) -> Why:
    if complete:
        return "old training state" if name.startswith("state/") else "not in the manifest"
    return "training state, unfinished and left" if name.startswith("state/") else "unfinished and left"


def _is_left(state: StageState, objects: Mapping[str, Listed], seen: _Seen, policy: Policy) -> bool:
    """Whether an unfinished output may go: an old one that is what it seems.

    What has a manifest that cannot be read, or one of another address, may be a copy or of a newer version.
    """
    if MANIFEST in objects and (state.manifest is None or _key(state.manifest.uri) != _key(state.uri)):
        return False
    newest = max(item.modified for item in objects.values())
    named = all(_addressable(f"{state.uri}/{name}") for name in objects)
    return named and _is_old(newest, seen, policy)


def _kept_states(store: Store, state: StageState, objects: Mapping[str, Listed], keep: int) -> set[str]:
    """The objects of the newest training states that are whole, and their pointer."""
    steps: dict[int, set[str]] = {}
    for name in objects:
        _, _, rest = name.partition("state/")
        step = rest.partition("/")[0]
        if name.startswith("state/") and step.isdecimal():
            steps.setdefault(int(step), set()).add(name)
    try:
        latest = latest_step(store, state.uri, objects) if LATEST in objects else max(steps, default=0)
    except (DataError, ObjectError):
        latest = max(steps, default=0)
    whole = sorted((step for step in steps if step <= latest), reverse=True)[:keep]
    return {LATEST, *(name for step in whole for name in steps[step])} if whole else set()


def _probes(seen: _Seen, policy: Policy) -> Iterator[Garbage]:
    """What a preflight that was killed left."""
    folder = f"{seen.base}/{PROBES}"
    for uri, item in seen.listing.items():
        if uri.startswith(f"{folder}/") and _is_old(item.modified, seen, policy):
            yield Garbage(folder, uri, "probe of preflight", item.bytes, item.modified)


def _uploads(store: Store, seen: _Seen, policy: Policy) -> Iterator[Garbage]:
    """Uploads in parts that nobody ended; their parts take room and are in no listing."""
    left: list[tuple[str, Upload]] = []
    for upload in store.uploads(seen.base):
        stage, key = (*upload.uri.removeprefix(f"{seen.base}/").split("/"), "", "")[:2]
        root = f"{seen.base}/{stage}/{key}" if stage in STAGES else f"{seen.base}/{stage}"
        if root not in seen.live and _is_old(upload.started, seen, policy) and _addressable(upload.uri):
            left.append((root, upload))
    with ThreadPoolExecutor(THREADS) as pool:
        sizes = list(pool.map(lambda item: store.uploaded_bytes(item[1]), left))
    for (root, upload), size in zip(left, sizes, strict=True):
        if size is not None:  # it has not ended meanwhile
            yield Garbage(root, upload.uri, "abandoned upload", size, upload.started, upload)


def _inputs(store: Store, seen: _Seen, policy: Policy) -> Iterator[Garbage]:
    """Files and models that were uploaded for runs, and that no manifest was made from."""
    folder = f"{seen.base}/{INPUTS}"
    groups: dict[str, dict[str, Listed]] = {}
    for uri, item in seen.listing.items():
        if uri.startswith(f"{folder}/"):
            name = uri.removeprefix(f"{folder}/").partition("/")[0]
            groups.setdefault(f"{folder}/{name}", {})[uri] = item
    for root, items in groups.items():
        young = not all(_is_old(item.modified, seen, policy) for item in items.values())
        if young or not all(map(_addressable, items)) or not seen.inputs.isdisjoint(_hashes(store, items)):
            continue
        for uri, item in items.items():
            yield Garbage(root, uri, "input of no manifest", item.bytes, item.modified)


def _hashes(store: Store, items: Mapping[str, Listed]) -> set[str]:
    """All hashes under which stages may name these files, or the folders of rows or models that hold them.

    See `limbeck.sources` for data sets and `limbeck.checkpoints.identity` for models.
    """
    found: set[str] = set()
    for scheme in ("s3", "minio"):
        sizes = {f"{scheme}://{_key(uri)}": item.bytes for uri, item in items.items()}
        data = [item for uri in sizes if is_data(uri) and (item := store.stored(uri)) is not None]
        unhashed = [item.model_copy(update={"sha256": ""}) for item in data]  # as others' objects are
        found |= {file_hash(item) for item in (*data, *unhashed)}
        folders = {uri[:end] for uri in sizes for end, letter in enumerate(uri) if letter == "/"}
        for path in folders:
            found |= {
                folder_hash([item for item in items if item.uri.startswith(f"{path}/")], path)
                for items in (data, unhashed)
            }
        for path, end in product(folders, ("", "/")):
            inside = {uri: size for uri, size in sizes.items() if uri.startswith(f"{path}/")}
            model = digest([path + end, inside])
            found |= {model, *(digest([model, dtype]) for dtype in get_args(Dtype))}
    return found


def _unlisted(garbage: Iterable[Garbage], seen: _Seen) -> Iterator[Garbage]:
    """Without what a manifest lists, wherever that manifest lies; an upload is no object yet."""
    return (
        item
        for item in garbage
        if _addressable(item.uri) and (item.upload is not None or _key(item.uri) not in seen.listed)
    )


def _manifest(store: Store, uri: str) -> Manifest | None:
    """A manifest that lies where no stage would write it."""
    try:
        return parse(store.read_bytes(uri), uri)
    except (DataError, ObjectError):
        return None


def _is_old(moment: datetime, seen: _Seen, policy: Policy) -> bool:
    """Whether something may go by its age; times are cut to seconds, so new things may lie in the future."""
    return max(seen.now - moment, timedelta()) >= policy.older_than


def _is_lease(uri: str, base: str) -> bool:
    stage, *rest = lease.lease_root(uri).removeprefix(f"{base}/").split("/")
    return stage in STAGES and len(rest) == 1 and _addressable(uri)


def _addressable(uri: str) -> bool:
    """Whether a key of a listing may be used: see `limbeck.keys`."""
    return not fault(_key(uri).partition("/")[2])


def _key(uri: str) -> str:
    """Bucket and key: the same object whatever the scheme is called."""
    return uri.partition("://")[2]
