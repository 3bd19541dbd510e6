"""Data sets of a Hugging Face hub: `hf://ORG/NAME@REVISION?config=C&split=S`, or one file by `?file=PATH`.

Whatever revision an address names, its commit is what is read and recorded. Only files of rows are fetched.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode

from limbeck.config import PrepareConfig
from limbeck.credentials import named_like_one
from limbeck.errors import ConfigError, DataError, LimbeckError, StorageError
from limbeck.keys import misnamed
from limbeck.processes import dies_with_parent
from limbeck.records import DATA_SUFFIXES
from limbeck.sources.files import is_data
from limbeck.sources.hub_worker import Answer, Failure, Request

SCHEME = "hf://"
FORM = "hf://ORG/NAME@REVISION?config=CONFIG&split=SPLIT, or ?file=PATH of one file"
ADDRESS = re.compile(
    r"hf://(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>\w[\w./-]*))?\?(?P<query>.+)", re.ASCII
)
COMMIT = re.compile("[0-9a-f]{40}")
TOKEN = "HF_TOKEN"  # noqa: S105 - the name of a variable
COPY = "or copy its files to s3:// and name that folder"
FAILURES: dict[Failure, tuple[type[LimbeckError], str, str]] = {
    "away": (
        StorageError,
        "the hub cannot be reached",
        f"Set prepare.hub_endpoint to a mirror, let the network policy pass it, {COPY}",
    ),
    "absent": (
        DataError,
        "not in the hub's local cache, and prepare.hub_offline is set",
        f"`hf download --repo-type dataset ORG/NAME --revision COMMIT` where HF_HOME lies, {COPY}",
    ),
    "repo": (
        DataError,
        "no such data set on the hub, or none that may be read",
        f"Check the name; a gated or private one needs its terms accepted and {TOKEN} in the secret",
    ),
    "revision": (DataError, "no such revision on the hub", "Name a commit, tag or branch of the data set"),
    "file": (DataError, "no such file in the data set", "Correct ?file="),
    "split": (DataError, "no such split in the data set", "Correct &split="),
    "kind": (
        DataError,
        f"a file that is none of {', '.join(DATA_SUFFIXES)}",
        f"Name one of its data files by ?file=PATH, {COPY}",
    ),
    "unreadable": (
        DataError,
        "not a data set of plain files that can be told",
        f"Correct ?config=, name one of its data files by ?file=PATH, {COPY}",
    ),
    "package": (
        ConfigError,
        "the package `datasets` is missing",
        f"`pip install 'limbeck[hub]'`, {COPY}",
    ),
}
"""What each failure is, and what to do about it."""


class HubData(NamedTuple):
    """What an address names."""

    repo: str
    revision: str
    config: str = ""
    split: str = ""
    file: str = ""

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit."""
        return COMMIT.fullmatch(self.revision) is not None

    @property
    def address(self) -> str:
        """The same data set always has the same address."""
        asked = {key: getattr(self, key) for key in ("config", "split", "file") if getattr(self, key)}
        return f"{SCHEME}{self.repo}@{self.revision}?{urlencode(asked, safe='/', quote_via=quote)}"


class HubFile(NamedTuple):
    """One file of rows."""

    name: str
    """Its address, for messages."""
    path: Path


def is_hub(address: str) -> bool:
    """Whether an address is one of a hub."""
    return address.startswith(SCHEME)


def parse(address: str) -> HubData:
    """Read an address.

    Raises:
        ConfigError: when it has another form, or names a file of no known kind.
    """
    parts = ADDRESS.fullmatch(address)
    asked = dict(parse_qsl(parts["query"])) if parts else {}
    told = set(asked) in ({"split"}, {"config", "split"}, {"file"})
    if "file" in asked:
        told = told and is_data(asked["file"]) and not misnamed([asked["file"]])
    if parts is None or not told or ".." in (parts["revision"] or ""):
        raise ConfigError(
            "not the address of a data set on a hub",
            where=repr(address)[:200],
            expected=FORM,
            remedy=f"Correct it; the split is never guessed, and a file is {', '.join(DATA_SUFFIXES)}",
        )
    return HubData(parts["repo"], parts["revision"] or "main", **asked)


def pinned(data: HubData, settings: PrepareConfig) -> HubData:
    """The same with the commit that its revision stands for now.

    Raises:
        StorageError: when the hub cannot be reached.
        DataError: when there is no such data set or revision.
    """
    return data if data.is_pinned else data._replace(revision=_ask("commit", data, settings).commit)


def names(data: HubData, settings: PrepareConfig) -> list[str]:
    """The names of its files, unfetched; see `fetch`."""
    return list(_ask("names", data, settings).names)


def fetch(data: HubData, settings: PrepareConfig) -> list[HubFile]:
    """Its files, in the hub's cache on the local disk.

    Args:
        data: Its revision is a commit.
        settings: `hub_endpoint` and `hub_offline` are read.

    Raises:
        StorageError: when the hub cannot be reached.
        DataError: when there is no such split or file, or a file is of another kind.
    """
    answer = _ask("paths", data, settings)
    base = f"{SCHEME}{data.repo}@{data.revision}"
    return [
        HubFile(f"{base}/{name}", Path(path)) for name, path in zip(answer.names, answer.paths, strict=True)
    ]


def _ask(what: Literal["commit", "names", "paths"], data: HubData, settings: PrepareConfig) -> Answer:
    """Ask in a process of its own: see `limbeck.sources.hub_worker`."""
    with tempfile.TemporaryDirectory() as scratch:
        request = Request(
            what=what,
            repo=data.repo,
            revision=data.revision,
            config=data.config,
            split=data.split,
            file=data.file,
            is_offline=settings.hub_offline,
            scratch=scratch,
        )
        done = subprocess.run(
            [sys.executable, "-c", "from limbeck.sources import hub_worker; hub_worker.main()"],
            input=json.dumps(request._asdict()),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            env=_environment(settings, scratch),
            preexec_fn=dies_with_parent(signal.SIGKILL),
        )
    if done.returncode or not done.stdout:
        raise DataError(
            "the process that asks the hub ended without an answer",
            where=data.address,
            got=f"exit status {done.returncode}",
            remedy="Its message stands above; was it killed for its memory, or is the disk full?",
        )
    answer = Answer(**json.loads(done.stdout))
    if answer.failure:
        kind, was, remedy = FAILURES[answer.failure]
        endpoint = f"{data.address} at {settings.hub_endpoint}" if settings.hub_endpoint else data.address
        raise kind(was, where=endpoint, got=answer.said, remedy=remedy)
    return answer


def _environment(settings: PrepareConfig, scratch: str) -> dict[str, str]:
    """The variables by which the libraries are set; the store's credentials stay here."""
    own = {key: value for key, value in os.environ.items() if key == TOKEN or not named_like_one(key)}
    offline = "1" if settings.hub_offline else "0"
    return own | {
        **({"HF_ENDPOINT": settings.hub_endpoint.rstrip("/")} if settings.hub_endpoint else {}),
        "HF_HUB_OFFLINE": offline,
        "HF_DATASETS_OFFLINE": offline,
        "HF_DATASETS_CACHE": scratch,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",  # mirrors speak plain HTTPS, and its memory is bounded
        "USE_TORCH": "0",
    }
