"""Manifests: what a stage made, written last, so that its presence means complete.

    {work_uri}/{stage}/{key}/manifest.json      and, beside it, the objects it lists

The key is a hash of all that decides the result: the stage, its inputs' content, its settings and
the code. A stage that finds its own manifest returns at once: that is resume, without a database.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import limbeck
from limbeck.devices import num_gpus
from limbeck.errors import DataError, LeaseError, StorageError
from limbeck.lease import Held
from limbeck.shards import WHOLE, Shard, Share
from limbeck.storage import Store, StoredObject, split

MANIFEST = "manifest.json"
# What starts and shows runs; no result depends on it.
LAUNCHERS = (
    "ablation",
    "apiserver.py",
    "cli",
    "cluster_api.py",
    "compiled.py",
    "components",
    "demo",
    "engine_fleet.py",
    "export",
    "fetch_report.py",
    "garbage.py",
    "gc.py",
    "init_file.py",
    "inputs.py",
    "kubeflow.py",
    "launcher.py",
    "lease.py",
    "lineage.py",
    "lint.py",
    "lint_rules.py",
    "local.py",
    "models.py",
    "nodes.py",
    "parameters.py",
    "planning",
    "pod_log.py",
    "preflight",
    "processes.py",
    "progress.py",
    "resources.py",
    "reuse.py",
    "run_file.py",
    "saver.py",
    "screen.py",
    "seaweed.py",
    "shard_status.py",
    "shapes.py",
    "stamp.py",
    "status.py",
    "status_text.py",
    "submit.py",
    "tasks",
    "torchrun.py",
    "trainjob.py",
    "warm.py",
    "warm_server.py",
)
SCHEMA_VERSION = 1
"""Raised when a manifest's meaning changes: an older reader then refuses it instead of misreading it."""


class Manifest(BaseModel):
    """What one run of one stage made. A few KB: this is what travels along a pipeline's edges."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    stage: str
    kind: str
    """What the objects hold: `prompts`, `completions`, ..., `checkpoint`."""
    name: str
    """What the report calls it: `teacher`, `sft_selected`, `ppo_model`, ... or the stage's word."""
    uri: str
    """The prefix that holds the objects; it ends without a slash."""
    objects: tuple[StoredObject, ...]
    inputs: dict[str, str]
    """Content hash of each input, by its name."""
    config_hash: str
    code_version: str
    sources: dict[str, str] = Field(default_factory=dict)
    """Address of each input that no stage made; of a hub's data set with the commit that was read."""
    num_input_rows: int = 0
    num_rows: int = 0
    rejected: dict[str, int] = Field(default_factory=dict)
    """How many rows were set aside (or left unlabelled), by reason."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """`stage/name` -> value; every name is explained in docs/metrics.md."""
    wall_seconds: float = 0.0
    """Of the attempt that finished it."""
    num_gpus: int | None = None
    """GPUs that this attempt could see; None where no stage has made it, and in manifests of before."""
    shard: Share | None = None
    """Of one shard alone; its prefix is that of the whole, which `limbeck.merging` makes of all of them."""

    @property
    def content_hash(self) -> str:
        """Identity of the content: the same bytes under the same names, whenever they were made.

        Objects that others wrote carry no sha256; they are known by address and size.
        """
        prefix = len(self.uri) + 1
        content = [[o.uri[prefix:], o.sha256 or f"{o.uri} {o.bytes}"] for o in self.objects]
        return digest([self.kind, self.name, content])

    def to_json(self) -> str:
        """The manifest as JSON, one key a line."""
        return self.model_dump_json(indent=1)


class _Versioned(BaseModel):
    """The one field that every version of a manifest has; a manifest of before has version 1."""

    schema_version: int = SCHEMA_VERSION


def digest(value: object) -> str:
    """16 hex digits of the sha256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def code_version(stage: str) -> str:
    """The package's version and a digest of the code that a stage's result can depend on.

    Left out: other stages, what only starts or shows runs and, for all but `report`, the page. So
    another colour in a plot does not throw away the checkpoints of `ppo`. `export` and `ablation` count as
    stages.
    """
    root = Path(limbeck.__file__).parent
    files = [path for path in root.rglob("*") if path.suffix in (".py", ".jinja")]
    total = hashlib.sha256()
    for path in sorted(files):
        parts = path.relative_to(root).parts
        other_stage = parts[0] == "stages" and path.stem not in (stage, "__init__")
        page = parts[0] in ("report", "label_quality", "intervals.py")
        launcher = parts[0] in LAUNCHERS and parts[0] != stage
        if other_stage or launcher or (page and stage not in ("report", "export", "ablation")):
            continue
        total.update("/".join(parts).encode() + b"\0" + path.read_bytes())
    return f"{limbeck.__version__}+{total.hexdigest()[:8]}"


def stage_uri(work_uri: str, stage: str, inputs: Mapping[str, str], config_hash: str) -> str:
    """The prefix of one stage's output for these inputs, settings and code."""
    key = digest([stage, dict(inputs), config_hash, code_version(stage)])
    return f"{work_uri.rstrip('/')}/{stage}/{key}"


def find(store: Store, uri: str) -> Manifest | None:
    """The complete manifest under a prefix, or None. Its objects are checked to exist with their size."""
    if not store.exists(f"{uri}/{MANIFEST}"):
        return None
    manifest = parse(store.read_bytes(f"{uri}/{MANIFEST}"), f"{uri}/{MANIFEST}")
    return manifest if _objects_are_there(store, manifest) else None


def find_shard(store: Store, uri: str, shard: Shard) -> Manifest | None:
    """The complete manifest of the whole or else, if that is what is asked for, of one shard of it."""
    whole = find(store, uri)
    return whole if whole or shard == WHOLE else find(store, shard.place(uri))


def _objects_are_there(store: Store, manifest: Manifest) -> bool:
    """Whether all objects are there with their size, by one listing."""
    sizes = store.sizes(manifest.uri)
    return all(sizes.get(item.uri) == item.bytes for item in manifest.objects)


def require(store: Store, manifest: Manifest) -> None:
    """Check that an input's objects are still there (a cached task can point at deleted ones).

    Raises:
        StorageError: naming the first object that is missing or has another size.
    """
    sizes = store.sizes(manifest.uri)
    for item in manifest.objects:
        if sizes.get(item.uri) != item.bytes:
            raise StorageError(
                f"an input of stage kind {manifest.kind} is gone",
                where=item.uri,
                expected=f"{item.bytes} bytes",
                got=f"{sizes[item.uri]} bytes" if item.uri in sizes else "no such object",
                remedy=f"Run the stage `{manifest.stage}` again (without the pipeline's cache)",
            )


def commit(store: Store, manifest: Manifest, held: Held | None = None) -> Manifest:
    """Write the manifest: the last act of a stage.

    Args:
        store: Where to.
        manifest: What the stage made.
        held: The stage's lease; confirmed last of all.

    Returns:
        The manifest, or the one of the same content that another attempt has written.

    Raises:
        LeaseError: when the lease was lost, or another attempt has committed another content.
    """
    if held:
        manifest = manifest.model_copy(update={"num_gpus": num_gpus()})
        held.confirm()
    place = (manifest.shard or WHOLE).place(manifest.uri)
    if store.write_new(f"{place}/{MANIFEST}", manifest.to_json().encode()) is None:
        manifest = _settled(store, manifest, f"{place}/{MANIFEST}")
    if held:
        held.finish()
    return manifest


def _settled(store: Store, manifest: Manifest, where: str) -> Manifest:
    """What becomes of a manifest where one lies already.

    One of the same content stays. One that cannot be read, or whose objects are not all there, is why the
    stage ran again: it is replaced.
    """
    data = manifest.to_json().encode()
    found = store.read_tagged(where)
    if found is None:
        written = store.write_new(where, data)
    elif (other := _whole(store, found[0], where)) is None:
        written = store.replace(where, data, found[1])
    elif other.content_hash == manifest.content_hash:
        return other
    else:
        written = None
    if written is None:
        raise LeaseError(
            "another attempt of the same stage has finished with another result",
            where=where,
            expected=f"content {manifest.content_hash}",
            got=f"content {other.content_hash}" if found and other else "a manifest that changes meanwhile",
            remedy="What lies there stays, and this result is dropped. Run again: it will be found complete",
        )
    return manifest


def _whole(store: Store, data: bytes, where: str) -> Manifest | None:
    """A manifest whose objects are all there; None if it cannot be read, or they are not."""
    try:
        manifest = parse(data, where)
    except DataError:
        return None
    return manifest if _objects_are_there(store, manifest) else None


def parse(text: str | bytes, where: str) -> Manifest:
    """Read a manifest from JSON.

    Raises:
        DataError: when it is not one, is of another schema version, or names objects outside its prefix.
    """
    try:
        version = _Versioned.model_validate_json(text).schema_version
        if version != SCHEMA_VERSION:
            raise DataError(
                "a manifest of another schema version",
                where=where,
                expected=f"version {SCHEMA_VERSION}",
                got=str(version),
                remedy="Run the stage that made it again, or use the version of Limbeck that made it",
            )
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            "not a Limbeck manifest",
            where=where,
            expected="the JSON that a stage writes",
            got=f"{first['msg']} at {'.'.join(map(str, first['loc'])) or 'the top'}",
            remedy="Give the manifest of a finished stage",
        ) from error
    for item in manifest.objects:
        name = item.uri.removeprefix(f"{manifest.uri}/")
        if name == item.uri or ".." in name.split("/"):
            raise DataError(
                "a manifest names an object outside its own prefix",
                where=where,
                expected=f"objects below {manifest.uri}/",
                got=item.uri,
                remedy="It is damaged or forged; run the stage that made it again",
            )
    return manifest


def load_manifest(store: Store, uri: str, kind: str) -> Manifest | None:
    """The finished manifest of one kind at an address: of the prefix, or of its part named like the kind.

    `prepare` and `label` make several outputs, each below the stage's prefix under its kind.

    Raises:
        DataError: when one lies there, but of another kind.
    """
    base = uri.rstrip("/").removesuffix(f"/{MANIFEST}")
    for prefix in (base, f"{base}/{kind}"):
        if store.exists(f"{prefix}/{MANIFEST}"):
            manifest = parse(store.read_bytes(f"{prefix}/{MANIFEST}"), f"{prefix}/{MANIFEST}")
            if manifest.kind != kind:
                raise DataError(
                    "a finished stage of another kind",
                    where=prefix,
                    expected=kind,
                    got=f"{manifest.kind} from stage {manifest.stage}",
                    remedy="Correct the address",
                )
            if split(manifest.uri) != split(prefix):
                raise DataError(
                    "a manifest lies elsewhere than it says",
                    where=prefix,
                    expected=f"a manifest of {prefix}",
                    got=manifest.uri,
                    remedy="Give the address that it names, or run the stage again with this work_uri",
                )
            return manifest
    return None


def input_hashes(**manifests: Manifest | Iterable[Manifest] | None) -> dict[str, str]:
    """Content hash of each named input: `completions.0` and so on in a list; absent ones are left out."""
    hashes = {}
    for name, value in manifests.items():
        if value is None:
            continue
        if isinstance(value, Manifest):
            hashes[name] = value.content_hash
        else:
            hashes |= {f"{name}.{index}": item.content_hash for index, item in enumerate(value)}
    return hashes
