"""Which outputs belong together: a manifest names its inputs by content hash, and so leads to them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple, get_args

from pydantic import BaseModel, ValidationError

from limbeck.config import Dtype
from limbeck.manifest import Manifest, digest
from limbeck.status import MAX_BYTES, STAGES, StageState
from limbeck.storage import ObjectError, Store


class Chain(NamedTuple):
    """An output and all that it was made from, as far as it is still there."""

    head: StageState
    """The newest report; without one, the newest complete output."""
    uris: frozenset[str]
    """Outputs that belong to it, itself too."""


class _Origin(BaseModel):
    uri: str


class _Provenance(BaseModel):
    """The part of report.json that names what a report was made from."""

    provenance: tuple[_Origin, ...] = ()


def newest_chain(store: Store, states: Sequence[StageState]) -> Chain | None:
    """What the newest report was made from; without a report, the newest complete output.

    A list of inputs with more than one item is known by the hash of all: only a report's own list of
    origins leads to them.

    Of the same content under several keys, the one is taken whose key belongs here already, else the newest.

    Raises:
        StorageError: when the store cannot be used.
    """
    complete = [state for state in states if state.state == "complete"]
    if not complete:
        return None
    reports = [state for state in complete if state.stage == "report"]
    head = max(reports or complete, key=lambda state: (state.modified, STAGES.index(state.stage)))
    by_hash, by_key = _by_hash(complete), defaultdict(list)
    for state in complete:
        by_key[state.stage, state.key].append(state)
    origins = _origins(store, head)
    waiting = [head, *(state for state in complete if state.uri in origins)]
    unsure: list[list[StageState]] = []  # the same content under several keys
    found: set[str] = set()
    keys: set[tuple[str, str]] = set()
    while waiting or unsure:
        if not waiting:
            same = unsure.pop()
            waiting.append(next((item for item in same if (item.stage, item.key) in keys), same[0]))
        state = waiting.pop()
        if state.uri in found or state.manifest is None:
            continue
        found.add(state.uri)
        keys.add((state.stage, state.key))
        waiting += by_key[state.stage, state.key]  # the outputs of a key were made together
        for wanted in state.manifest.inputs.values():
            same = by_hash.get(wanted, [])
            waiting += same if len(same) == 1 else []
            unsure += [same] if len(same) > 1 else []
    return Chain(head, frozenset(found))


def _by_hash(complete: Iterable[StageState]) -> dict[str, list[StageState]]:
    """Outputs by all hashes under which the inputs of a stage may name them, newest first."""
    found = defaultdict(list)
    for state in sorted(complete, key=lambda state: state.modified, reverse=True):
        if state.manifest is not None:
            for value in _hashes(state.manifest):
                found[value].append(state)
    return found


def _hashes(manifest: Manifest) -> list[str]:
    """What may stand for an output: its content or key, a list of it alone, a model of a number type."""
    content = manifest.content_hash
    models = [digest([content, dtype]) for dtype in get_args(Dtype)]
    key = manifest.uri.rpartition("/")[2]
    return [
        content,
        digest([content]),
        key,
        *(models if manifest.kind in ("checkpoint", "reward_model") else []),
    ]


def _origins(store: Store, head: StageState) -> set[str]:
    """The addresses that a report says it was made from; none if they cannot be read."""
    objects = head.manifest.objects if head.manifest and head.stage == "report" else ()
    item = next((item for item in objects if item.uri.endswith("/report.json")), None)
    if item is None or item.bytes > MAX_BYTES:
        return set()
    try:
        report = _Provenance.model_validate_json(store.read_bytes(item.uri))
    except (ValidationError, ObjectError):
        return set()
    return {origin.uri for origin in report.provenance}
