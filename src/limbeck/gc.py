"""Removes what `limbeck.garbage` finds, while runs go on.

All of it is looked at twice, when it is planned and just before it is removed. Unfinished work is removed
under the stage's own lease: an attempt that starts meanwhile stops, and counts on no parts that go away.
"""

from collections.abc import Iterable
from itertools import groupby

from limbeck import lease
from limbeck.errors import LeaseError
from limbeck.garbage import UNFINISHED, Found, Garbage, Policy, find_below, find_garbage
from limbeck.lease import LEASE
from limbeck.status_text import minute, printable, size
from limbeck.storage import Store

ROW = "{:35}  {:>7}  {:>8}  {:16}  {}"


def remove(store: Store, work_uri: str, policy: Policy, found: Found) -> Found:
    """Remove garbage that is still garbage.

    Args:
        store: Where it lies.
        work_uri: The same as `find_garbage` was given.
        policy: The same.
        found: What `find_garbage` gave.

    Returns:
        What was removed, and what was left because someone came to work there.

    Raises:
        StorageError: when the store cannot be used.
    """
    removed: list[Garbage] = []
    kept: dict[str, str] = {}
    again = find_garbage(store, work_uri, policy) if found.garbage else found
    still = set(again.garbage)
    for root, group in groupby(sorted(found.garbage, key=lambda item: item.root), key=lambda item: item.root):
        planned = [item for item in group if item in still]
        try:
            removed += _remove_below(store, root, work_uri, policy, planned)
        except LeaseError as error:
            kept[root] = str(error)
    return Found(
        tuple(removed), kept | {uri: why for uri, why in again.kept.items() if uri not in found.kept}
    )


def _remove_below(
    store: Store, root: str, work_uri: str, policy: Policy, planned: list[Garbage]
) -> list[Garbage]:
    """Remove what was planned below one prefix; what is unfinished while its lease is held.

    Raises:
        LeaseError: when an attempt is at work there.
    """
    left = [item for item in planned if item.why in UNFINISHED]
    others = [item for item in planned if item.why not in UNFINISHED]
    done: list[Garbage] = []
    if left:
        with lease.held(store, root, "gc") as held:
            still = set(find_below(store, work_uri, root, policy))
            doomed = [item for item in left if item in still]
            held.confirm()
            store.delete(item.uri for item in doomed if not item.uri.endswith(f"/{LEASE}"))
            done += doomed
        if not set(store.listing(root)) - {f"{root}/{LEASE}"}:
            # Who takes it in this moment loses it and starts again: without a lease nothing is committed.
            store.delete([f"{root}/{LEASE}"])
    for item in others:
        if item.upload:
            store.abort(item.upload)
    store.delete(item.uri for item in others if item.upload is None)
    return done + others


def text(work_uri: str, found: Found, *, removed: bool) -> str:
    """What was found or removed, a line for each place and reason."""
    base = work_uri.rstrip("/")
    total = sum(item.bytes for item in found.garbage)
    done = "removed" if removed else "to remove; --delete does it" if found.garbage else "to remove"
    lines = [f"{base}: {len(found.garbage):,} objects, {size(total)} {done}"]
    if found.garbage:
        lines += ["", ROW.format("what", "objects", "size", "oldest (UTC)", "address")]
    for (root, why), items in _grouped(found.garbage):
        address = root.removeprefix(f"{base}/")
        bytes_ = size(sum(item.bytes for item in items))
        oldest = minute(min(item.modified for item in items))
        lines.append(ROW.format(why, f"{len(items):,}", bytes_, oldest, address))
    lines += [f"kept {uri.removeprefix(f'{base}/')}: {why}" for uri, why in sorted(found.kept.items())]
    return "\n".join(map(printable, lines))


def _grouped(garbage: Iterable[Garbage]) -> list[tuple[tuple[str, str], list[Garbage]]]:
    """By place and reason, in order."""

    def key(item: Garbage) -> tuple[str, str]:
        return item.root, item.why

    return [(place, list(items)) for place, items in groupby(sorted(garbage, key=key), key=key)]
