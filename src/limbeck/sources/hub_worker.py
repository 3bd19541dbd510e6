"""The process that asks a Hugging Face hub for `limbeck.sources.hub`: one JSON request in, one answer out.

`datasets` and `huggingface_hub` read their settings from the environment when they are imported, so each
request has a process of its own, with the environment it needs and without the credentials of the store.
`datasets` finds the files of a configuration and split; it neither reads them nor runs code of a data set:
it knows no scripts any more, and no builder of it is started.
"""

import json
import os
import sys
from pathlib import Path
from typing import Literal, NamedTuple

from limbeck.keys import misnamed
from limbeck.sources.files import is_data

Failure = Literal["", "away", "absent", "repo", "revision", "file", "split", "kind", "unreadable", "package"]


class Request(NamedTuple):
    """What is asked of a hub."""

    what: Literal["commit", "names", "paths"]
    """The commit of a revision; the names of a split's files; or these files, fetched, by their paths."""
    repo: str
    revision: str
    """A commit, unless that is what is asked."""
    config: str
    split: str
    file: str
    """One file instead of a configuration and its split."""
    is_offline: bool
    scratch: str
    """A folder that goes when this process has ended."""


class Answer(NamedTuple):
    """What came back."""

    commit: str = ""
    names: tuple[str, ...] = ()
    """Below the data set's root."""
    paths: tuple[str, ...] = ()
    failure: Failure = ""
    said: str = ""
    """What the library said of the failure."""


def answer(request: Request) -> Answer:
    """Ask, and give a failure its name."""
    try:
        import httpx2  # noqa: PLC0415 - see above
        from huggingface_hub import errors  # noqa: PLC0415
    except ImportError as error:
        return Answer(failure="package", said=str(error))
    try:
        if request.what == "commit":
            return Answer(commit=_commit(request))
        names = [request.file] if request.file else _names(request)
        if wrong := [name for name in names if not is_data(name)] + misnamed(names):
            return Answer(failure="kind", said=wrong[0][:200])
        paths = [_path(request, name) for name in names] if request.what == "paths" else []
        return Answer(names=tuple(names), paths=tuple(paths))
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        return Answer(failure="absent" if request.is_offline else "away", said=_said(error))
    except errors.RepositoryNotFoundError as error:  # also one that is gated, or private
        return Answer(failure="repo", said=_said(error))
    except errors.RevisionNotFoundError as error:
        return Answer(failure="revision", said=_said(error))
    except errors.EntryNotFoundError as error:
        return Answer(failure="file", said=_said(error))
    except errors.HfHubHTTPError as error:
        refused = error.response is not None and error.response.status_code in (401, 403)
        return Answer(failure="repo" if refused else "away", said=_said(error))
    except (httpx2.HTTPError, ConnectionError) as error:
        return Answer(failure="away", said=_said(error))
    except ImportError as error:
        return Answer(failure="package", said=str(error))
    except KeyError as error:
        return Answer(failure="split", said=str(error.args[0]))
    except (ValueError, RuntimeError, FileNotFoundError) as error:  # what `datasets` makes of a data set
        return Answer(failure="unreadable", said=_said(error))


def _commit(request: Request) -> str:
    """The commit that a branch or tag stands for now; offline, stood for when it was fetched."""
    from huggingface_hub import HfApi  # noqa: PLC0415

    if request.is_offline:
        return _snapshot(request).name
    return str(HfApi().dataset_info(request.repo, revision=request.revision).sha)


def _names(request: Request) -> list[str]:
    """The files of a split, by the data set's card or the names of its files.

    Raises:
        KeyError: with the splits that there are, when it is none of them.
    """
    from datasets import DownloadConfig, load_dataset_builder  # noqa: PLC0415

    if request.is_offline:
        where, base, revision = str(_snapshot(request)), f"{_snapshot(request)}/", None
    else:
        # With its scheme: else a local folder of the same name would be taken.
        where, revision = f"hf://datasets/{request.repo}", request.revision
        base = f"hf://datasets/{request.repo}@{request.revision}/"
    builder = load_dataset_builder(
        where,
        name=request.config or None,
        revision=revision,
        cache_dir=request.scratch,  # empty: it falls back to any commit that it finds there
        download_config=DownloadConfig(cache_dir=request.scratch),
    )
    splits = {str(name): [str(file) for file in files] for name, files in builder.config.data_files.items()}
    if request.split not in splits:
        raise KeyError(", ".join(splits))
    outside = [file for file in splits[request.split] if not file.startswith(base)]
    if outside:  # a card may name any address, and any path of this machine
        raise ValueError(f"the card names a file outside the data set: {outside[0]}")
    return [file.removeprefix(base) for file in splits[request.split]]


def _path(request: Request, name: str) -> str:
    """One file in the hub's cache, fetched if it is not there."""
    from huggingface_hub import hf_hub_download  # noqa: PLC0415

    return str(
        hf_hub_download(
            request.repo,
            name,
            repo_type="dataset",
            revision=request.revision,
            local_files_only=request.is_offline,
        )
    )


def _snapshot(request: Request) -> Path:
    """The folder of a revision in the hub's cache."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    folder = snapshot_download(
        request.repo, repo_type="dataset", revision=request.revision, local_files_only=True
    )
    return Path(folder)


def _said(error: BaseException) -> str:
    """An error on one line; the first cause tells what an endpoint that is away said."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).partition("\nFor more information")[0]
    return f"{type(error).__name__}: {text}"[:300]


def main() -> None:
    """Answer what stands on stdin."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what is printed on stdout would mix with the answer
    json.dump(answer(Request(**json.load(sys.stdin)))._asdict(), channel)
    channel.close()
