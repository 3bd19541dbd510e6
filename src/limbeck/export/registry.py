"""A promoted export in the Kubeflow Model Registry: a version of a registered model, and where its files lie.

The registry's own client is used, but for its outermost layer: without a token that one sends the pod's
service account to whatever address it is given, and it cannot complete a registration that was interrupted.
"""

import asyncio
import os
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from limbeck.checkpoints import base_uri
from limbeck.errors import ClusterError, ConfigError
from limbeck.export.chosen import Chosen
from limbeck.manifest import Manifest
from limbeck.progress import say

if TYPE_CHECKING:
    from model_registry.core import ModelRegistryAPIClient

TOKEN = "LIMBECK_REGISTRY_TOKEN"  # noqa: S105 - the name of a variable
LOOPBACK = ("127.0.0.1", "::1", "localhost")
AUTHOR = "limbeck"
FORMAT = ("safetensors", "1")


class Registry(NamedTuple):
    """Where to register, and under which name."""

    url: str
    name: str

    def check(self) -> None:
        """Check both before anything is exported.

        Raises:
            ConfigError: when one is missing or has another form, or the client is not installed.
        """
        parts = urlsplit(self.url)
        if not self.name.strip() or parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                "cannot register",
                where="--register and --registry (register and registry)",
                expected="a name, and an address such as https://registry.example",
                got=f"{self.name!r:.80} and {self.url!r:.80}",
                remedy="Give both",
            )
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ConfigError(
                "an address with more than a place in it",
                where="--registry (registry)",
                expected="https://HOST[:PORT][/PATH]",
                remedy=f"The token comes from {TOKEN}",
            )
        try:
            import model_registry.core  # noqa: F401, PLC0415 - only who registers needs it
        except ModuleNotFoundError as error:
            raise ConfigError(
                "registering needs the registry's client",
                expected="model-registry",
                got=f"no module {error.name}",
                remedy="pip install 'limbeck[registry]'",
            ) from error


def register(registry: Registry, exported: Manifest, chosen: Chosen) -> None:
    """Enter an export as a new version; one that is there already, as a whole or in part, is completed.

    The version's name is the export's content hash, so the same export is one version.

    Args:
        registry: Where, and as what.
        exported: The manifest of an export in the object store.
        chosen: What was exported; its figures go along.

    Raises:
        ClusterError: when the registry cannot be reached, refuses, or has another address for this version.
        GateError: when it was not promoted.
    """
    from aiohttp import ClientError  # noqa: PLC0415
    from model_registry.exceptions import StoreError  # noqa: PLC0415
    from mr_openapi.exceptions import OpenApiException  # noqa: PLC0415

    chosen.check(even_if_not_promoted=False, registering=True)
    try:
        fresh = asyncio.run(_register(_client(registry.url), registry.name, exported, chosen))
    except (ClientError, OpenApiException, StoreError, OSError, TimeoutError, ValueError) as error:
        raise ClusterError(
            "the model registry did not take the model",
            where=registry.url,
            got=str(error)[:300] or type(error).__name__,
            remedy=f"Is it up, does it speak API v1, and take the token in {TOKEN}? Then run the same again: "
            "the export is found finished",
        ) from error
    what = f"version {exported.content_hash} of {registry.name}"
    say(f"export: {what} is {'registered' if fresh else 'in the registry already'}")


async def _register(client: "ModelRegistryAPIClient", name: str, exported: Manifest, chosen: Chosen) -> bool:
    """Model, version, artifact: each is made unless it is there. Whether anything was made."""
    from model_registry.types import ModelArtifact, ModelVersion, RegisteredModel  # noqa: PLC0415

    uri, fresh = base_uri(exported), False
    model = await client.get_registered_model_by_params(name)
    if model is None:
        model, fresh = await client.upsert_registered_model(RegisteredModel(name=name, owner=AUTHOR)), True
    version = await client.get_model_version_by_params(model.id, exported.content_hash)
    if version is None:
        made = ModelVersion(
            name=exported.content_hash,
            author=AUTHOR,
            description=_description(chosen),
            custom_properties=_properties(exported, chosen),
        )
        version, fresh = await client.upsert_model_version(made, model.id), True
    artifacts = await client.get_model_artifacts(version.id)
    if not artifacts:
        artifact = ModelArtifact(
            name=name, uri=uri, model_format_name=FORMAT[0], model_format_version=FORMAT[1]
        )
        await client.upsert_model_version_artifact(artifact, version.id)
        return True
    if uri not in {item.uri for item in artifacts}:
        raise ValueError(f"version {version.name} is there with another address, {artifacts[0].uri}")
    return fresh


def _client(url: str) -> "ModelRegistryAPIClient":
    """A client; a token is never sent in the clear, but to this machine."""
    from model_registry.core import ModelRegistryAPIClient  # noqa: PLC0415
    from mr_openapi import Configuration  # noqa: PLC0415

    parts = urlsplit(url)
    token = os.environ.get(TOKEN, "").strip()
    if parts.scheme == "http" and parts.hostname not in LOOPBACK and token:
        say(f"export: {url} is no https, so the token in {TOKEN} is not sent")
        token = ""
    return ModelRegistryAPIClient(Configuration(host=url.rstrip("/"), access_token=token or None))


def _description(chosen: Chosen) -> str:
    decision = chosen.report.decision if chosen.report else None
    return f"{decision.headline} {decision.reason}" if decision else ""


def _properties(exported: Manifest, chosen: Chosen) -> dict[str, str | float]:
    """What the registry shows beside the version: figures, and where all of it came from."""
    rows = chosen.report.rows if chosen.report else ()
    figures = {
        f"accuracy_{row.decoding}": row.accuracy
        for row in rows
        if row.name == chosen.row and row.accuracy is not None
    }
    return figures | {
        "checkpoint": exported.name,
        "checkpoint_uri": chosen.checkpoint.uri,
        "report_uri": chosen.source.uri,
        "code_version": exported.code_version,
    }
