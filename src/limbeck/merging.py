"""One manifest of all shards of a stage: checked, and the same whatever their number was.

Its objects are those that the shards list, in the order of their parts, so its content hash is the one that a
single task would have given, and all that comes after is found again.
"""

from collections import Counter
from collections.abc import Sequence

from limbeck import lease
from limbeck.errors import DataError
from limbeck.manifest import Manifest, commit, require
from limbeck.progress import say
from limbeck.records import RejectedRow
from limbeck.rows import is_part, read_part
from limbeck.shelf import in_order, part_number
from limbeck.storage import Store

SUMMED = ("prompt_tokens", "completion_tokens", "cost", "slow_comparisons")
"""The metrics that add up; whoever has others works them out anew."""


def merge(shards: Sequence[Manifest]) -> Manifest:
    """What all shards of a stage have made, as one manifest that nobody has written yet.

    Args:
        shards: One manifest of each, in any order; or of a whole that was finished meanwhile.

    Returns:
        Parts, and then rows set aside, in order; counts, times and the metrics of `SUMMED` are sums. GPUs are
        those of each shard, or None when they differ.

    Raises:
        DataError: when a shard is missing, is there twice, or is of another stage, input or setting; when a
            part is missing, or not of the shard that lists it.
    """
    whole = [item for item in shards if item.shard is None]
    if not shards:
        raise _misfit("no shards", "at least one", "none")
    first = [*whole, *shards][0]
    for item in shards:
        for name in ("uri", "stage", "kind", "name", "inputs", "config_hash", "code_version"):
            if getattr(item, name) != getattr(first, name):
                expected, got = str(getattr(first, name)), str(getattr(item, name))
                raise _misfit(f"shards of another {name}", expected, got, item)
    if whole:
        return first
    _check_all_there(shards)
    gpus = {item.num_gpus for item in shards}
    return first.model_copy(
        update={
            "shard": None,
            "objects": in_order(item for manifest in shards for item in manifest.objects),
            "num_input_rows": sum(item.num_input_rows for item in shards),
            "num_rows": sum(item.num_rows for item in shards),
            "rejected": dict(sum((Counter(item.rejected) for item in shards), Counter())),
            "metrics": _summed(shards),
            "wall_seconds": sum(item.wall_seconds for item in shards),
            "num_gpus": gpus.pop() if len(gpus) == 1 else None,
        }
    )


def committed(store: Store, merged: Manifest, name: str) -> Manifest:
    """Write the manifest of the whole, and delete the loose rows that are all in parts by now.

    Args:
        store: Where the shards lie.
        merged: From `merge`, with the metrics that do not add up.
        name: What is merged, in messages.

    Raises:
        StorageError: when an object of a shard is gone.
        LeaseError: when an attempt is at work, or has finished with another content.
    """
    with lease.held(store, merged.uri, f"merge of {name}") as held:
        require(store, merged)
        loose = [uri for uri in store.sizes(merged.uri) if "/loose-" in uri]
        held.confirm()
        done = commit(store, merged)
        held.finish()
        store.delete(loose)
    say(f"merge of {name}: {done.num_rows} rows in {sum(map(is_part, done.objects))} parts")
    return done


def rejected_rows(store: Store, merged: Manifest) -> list[RejectedRow]:
    """What was set aside, in order."""
    return [
        row
        for item in merged.objects
        if "/rejected-" in item.uri
        for row in read_part(store, item, RejectedRow)
    ]


def _check_all_there(shards: Sequence[Manifest]) -> None:
    """Each shard once, and each part from its own shard.

    Raises:
        DataError: when it is not so.
    """
    of = [item.shard for item in shards if item.shard]
    count, num_parts = of[0].count, of[0].num_parts
    if sorted((shard.index, shard.count) for shard in of) != [(number, count) for number in range(count)]:
        got = ", ".join(f"{shard.index} of {shard.count}" for shard in of)
        raise _misfit("not each shard once", f"0 to {count - 1} of {count}", got, shards[0])
    found: Counter[int] = Counter()
    for manifest, shard in zip(shards, of, strict=True):
        numbers = Counter(map(part_number, filter(is_part, manifest.objects)))
        aside = {part_number(item) for item in manifest.objects} - numbers.keys()
        numbers.update(aside)  # of these, nothing but rows set aside is there
        found.update(numbers)
        wrong = [number for number in numbers if not shard.has(number)]
        if wrong or shard.num_parts != num_parts:
            got = f"part {wrong[0]}" if wrong else f"{shard.num_parts} parts in all"
            raise _misfit(f"shard {shard.index} of {count} lists others", f"its {num_parts}", got, manifest)
    bad = sorted(
        number for number in found.keys() | set(range(num_parts)) if found[number] != (number < num_parts)
    )
    if bad:
        raise _misfit(
            "a part that is not there once", f"once each of {num_parts}", f"part {bad[0]}", shards[0]
        )


def _summed(shards: Sequence[Manifest]) -> dict[str, float]:
    """The metrics that add up, of those that every shard tells."""
    names = [name for name in shards[0].metrics if name.partition("/")[2] in SUMMED]
    told = [name for name in names if all(name in item.metrics for item in shards)]
    return {name: sum(item.metrics[name] for item in shards) for name in told}


def _misfit(what: str, expected: str, got: str, where: Manifest | None = None) -> DataError:
    return DataError(
        f"shards that do not belong together: {what}",
        where=where.uri if where else "input shards",
        expected=expected[:300],
        got=got[:300],
        remedy="Give the manifests of all shards of one loop; run the missing ones again",
    )
