"""What a stage made, kept and compared: rows must be the same, a training's curve the same to a tolerance."""

import json
from collections.abc import Mapping
from typing import NamedTuple

from limbeck.manifest import MANIFEST, Manifest, parse
from limbeck.storage import Store

TOLERANCES: Mapping[str, Mapping[str, float]] = {
    "sft": {"sft/loss": 1e-4, "sft/learning_rate": 1e-9},
    "reward": {"reward/loss": 1e-4},
    "ppo": {"ppo/score": 0.05, "ppo/kl_coef": 1e-3},
}
"""How far each step of a training may be from the unbroken one's: those of tests/test_resume_training.py."""


class Made(NamedTuple):
    """All that lies below one stage's prefix."""

    prefix: str
    """`s3://bucket/work/stage/key`."""
    objects: Mapping[str, bytes]
    """By URI, manifests last."""
    manifests: tuple[Manifest, ...]


def read_made(store: Store, prefix: str) -> Made:
    """Read everything below a finished stage's prefix into memory: a cut demo's is small."""
    uris = sorted(store.listing(prefix), key=lambda uri: uri.endswith(f"/{MANIFEST}"))
    objects = {uri: store.read_bytes(uri) for uri in uris}
    manifests = tuple(parse(data, uri) for uri, data in objects.items() if uri.endswith(f"/{MANIFEST}"))
    return Made(prefix, objects, manifests)


def remove(store: Store, made: Made) -> None:
    """As if the stage had never run."""
    store.delete(list(store.listing(made.prefix)))


def restore(store: Store, made: Made) -> None:
    """As it was."""
    remove(store, made)
    for uri, data in made.objects.items():
        store.write_bytes(uri, data)


def difference(unbroken: Made, broken: Made) -> str:
    """What is not as it must be; nothing, if all is."""
    if not broken.manifests:
        return "no manifest"
    stage = unbroken.manifests[0].stage
    if stage in TOLERANCES:
        return _off_curve(unbroken, broken, TOLERANCES[stage])
    if len(broken.manifests) < len(unbroken.manifests):
        return f"{len(broken.manifests)} manifests instead of {len(unbroken.manifests)}"
    for one, other in zip(unbroken.manifests, broken.manifests, strict=True):
        # The report shows how long everything took.
        if one.metrics != other.metrics or (stage != "report" and one.content_hash != other.content_hash):
            return f"another {one.kind}"
    return ""


def leftovers(store: Store, work_uri: str) -> list[str]:
    """Objects that no manifest lists and nobody needs, and uploads that nobody ended."""
    listing = list(store.listing(work_uri))
    kept = {uri for uri in listing if uri.endswith(f"/{MANIFEST}") or uri.startswith(f"{work_uri}/inputs/")}
    for uri in [uri for uri in kept if uri.endswith(f"/{MANIFEST}")]:
        kept.update(item.uri for item in parse(store.read_bytes(uri), uri).objects)
    return [uri for uri in listing if uri not in kept] + [item.uri for item in store.uploads(work_uri)]


def _off_curve(unbroken: Made, broken: Made, tolerances: Mapping[str, float]) -> str:
    one, other = _history(unbroken), _history(broken)
    if len(one) != len(other):
        return f"{len(other)} steps instead of {len(one)}"
    for name, tolerance in tolerances.items():
        gaps = [abs(a.get(name, 0.0) - b.get(name, 0.0)) for a, b in zip(one, other, strict=True)]
        if max(gaps) > tolerance:
            return f"{name} off by {max(gaps):.2g} at step {gaps.index(max(gaps))}"
    return ""


def _history(made: Made) -> list[dict[str, float]]:
    """The curve that the manifest lists; a killed attempt may have left another one beside it."""
    listed = {item.uri for manifest in made.manifests for item in manifest.objects}
    (data,) = [made.objects[uri] for uri in listed if uri.endswith("/history.jsonl")]
    return [json.loads(line) for line in data.decode().splitlines()]
