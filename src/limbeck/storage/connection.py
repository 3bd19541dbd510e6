"""A client of one S3-compatible endpoint, made from the standard variables of the environment."""

import os
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import botocore.session
from botocore.config import Config as BotoConfig
from botocore.exceptions import BotoCoreError
from botocore.loaders import Loader, create_loader

from limbeck.errors import StorageError
from limbeck.storage.address import without_userinfo

NUM_CONNECTIONS = 32


class Connection(NamedTuple):
    """Nothing is sent before the first request."""

    client: Any
    """boto3's, without retries of its own: those are in `patience`."""
    credentials: Any
    """botocore's, which renew themselves where they expire; None without any."""
    endpoint: str | None
    """Without a password; None for AWS itself."""


def connect() -> Connection:
    """Read endpoint, credentials, region, proxy and certificates from the AWS_* variables.

    Raises:
        StorageError: when the variables make no client.
    """
    given = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    endpoint = given and without_userinfo(given)
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    try:
        # The module's default session would keep credentials it saw before.
        core = botocore.session.get_session()
        core.register_component("data_loader", _descriptions(core.get_config_variable("data_path")))
        session = boto3.Session(botocore_session=core)
        config = BotoConfig(
            signature_version="s3v4",
            retries={"total_max_attempts": 1},
            connect_timeout=5,
            read_timeout=60,
            max_pool_connections=NUM_CONNECTIONS,
            s3={"addressing_style": _addressing_style(session, endpoint)},
            # Every body is checked by its sha256, here and there.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        client = session.client("s3", region_name=region, config=config)
        return Connection(client, session.get_credentials(), endpoint)
    except (BotoCoreError, ValueError) as error:
        # What boto3 says of an address repeats it, password and all.
        said = without_userinfo(str(error)) if isinstance(error, BotoCoreError) else endpoint
        raise StorageError(
            "no client of the object store",
            where="the AWS_* variables",
            expected="AWS_ENDPOINT_URL such as https://host:port, and a profile and region that exist",
            got=said,
            remedy="Correct them",
        ) from None


class _Descriptions(Loader):  # type: ignore[misc]  # botocore is untyped
    """botocore's loader, which looks into the folders of all 400 services before it loads one (0.03 s)."""

    def list_available_services(self, type_name: str) -> list[str]:
        """Their names; whether a folder holds this type is seen when it is loaded."""
        folders = [Path(path) for path in self.search_paths]
        return [service.name for folder in folders if folder.is_dir() for service in folder.iterdir()]


@cache
def _descriptions(data_path: str | None) -> Loader:
    """AWS's descriptions, read once (0.06 s) for all clients of a process and of its forks."""
    return _Descriptions(create_loader(data_path).search_paths, include_default_search_paths=False)


def _addressing_style(session: boto3.Session, endpoint: str | None) -> str:
    """How the bucket is named: what AWS's configuration file says under `s3`, else what works everywhere."""
    configured = session._session.get_config_variable("s3") or {}
    # Path style works on every server; virtual-host style needs wildcard DNS.
    return str(configured.get("addressing_style") or ("path" if endpoint else "auto"))
