"""Brings what a run file names on this machine into the object store, where every stage can reach it."""

from collections.abc import Iterator
from pathlib import Path

from limbeck.errors import ConfigError
from limbeck.keys import uploaded_files
from limbeck.models import check_folder
from limbeck.progress import say
from limbeck.records import DATA_SUFFIXES
from limbeck.run_file import RunFile
from limbeck.sources import hub
from limbeck.sources.files import is_data
from limbeck.storage import Store, sha256

DATA = ("prompts", "heldout")
MODELS = ("teacher", "student", "checkpoint")


def check_inputs(run_file: RunFile) -> None:
    """Check the local files and folders that parameters name, before anything starts.

    Raises:
        ConfigError: when one is missing or has an unknown suffix, or an `hf://` address has another form.
        DataError: when a model folder is not a checkpoint that can be used.
    """
    for key in DATA:
        path = getattr(run_file, key)
        if hub.is_hub(path):
            hub.parse(path)
        elif _is_local(path):
            _check_data(key, Path(path).expanduser())
    for key, path in _models(run_file):
        if _is_local(path):
            folder = Path(path).expanduser()
            if not folder.is_dir():
                raise ConfigError(
                    f"no such folder in `{key}`",
                    expected="a Hugging Face checkpoint folder or an s3:// URI",
                    got=str(folder),
                    remedy="Correct the path; it is relative to where you run the command",
                )
            check_folder(folder, str(folder))


def stage_inputs(run_file: RunFile, store: Store) -> RunFile:
    """Upload local inputs below `{work_uri}/inputs/`, under names that hash their content.

    The bucket is made if it is missing. What is there already is not sent again, so the same data and
    models find finished stages again.

    Args:
        run_file: May name local files and folders; what is in the store already stays as it is.
        store: Where to.

    Returns:
        The run file with addresses in the store alone.

    Raises:
        ConfigError: when a file or folder is missing or has an unknown suffix.
        DataError: when a model folder is not a checkpoint that can be used.
    """
    check_inputs(run_file)
    store.make_bucket(run_file.work_uri)
    uri = f"{run_file.work_uri.rstrip('/')}/inputs"
    staged = {key: _stage_data(getattr(run_file, key), uri, store) for key in DATA}
    staged |= {key: _stage_model(getattr(run_file, key), uri, store) for key in _folders(run_file)}
    models = tuple(_stage_model(path, uri, store) for path in run_file.models)
    return run_file.model_copy(update={**staged, "models": models})


def _folders(run_file: RunFile) -> Iterator[str]:
    """The parameters that name a model folder: `teacher` may be the name of a black box instead."""
    black_box = run_file.config.teacher.sampler == "openai"
    return (key for key in MODELS if not (black_box and key == "teacher"))


def _models(run_file: RunFile) -> Iterator[tuple[str, str]]:
    for key in _folders(run_file):
        yield key, getattr(run_file, key)
    yield from (("models", path) for path in run_file.models)


def _is_local(path: str) -> bool:
    return path != "" and "://" not in path


def data_files(path: Path) -> list[Path]:
    """The files of rows that a local path names: itself, or those in the folder, in name order."""
    return [file for file in uploaded_files(path) if is_data(file.name)] if path.is_dir() else [path]


def _check_data(key: str, path: Path) -> None:
    if not path.exists():
        raise ConfigError(
            f"no such file in `{key}`",
            expected="a file or a folder, an s3:// URI or hf://",
            got=str(path),
            remedy="Correct the path; it is relative to where you run the command",
        )
    if not all(is_data(file.name) for file in data_files(path)) or not data_files(path):
        raise ConfigError(
            f"unknown kind of file in `{key}`",
            expected=", ".join(DATA_SUFFIXES),
            got=path.name if path.is_file() else f"a folder of others: {path}",
            remedy="Convert it, or rename it if it is one of these",
        )


def _stage_data(path: str, uri: str, store: Store) -> str:
    if not _is_local(path):
        return path
    local = Path(path).expanduser()
    size = sum(file.stat().st_size for file in data_files(local))
    say(f"inputs: {local}, {size / 1e6:.1f} MB")
    if local.is_dir():
        return _stage_folder(local, uri, store, DATA_SUFFIXES)
    return store.write_file(local, f"{uri}/{sha256(local)[:16]}/{local.name}").uri


def _stage_model(path: str, uri: str, store: Store) -> str:
    if not _is_local(path):
        return path
    folder = Path(path).expanduser()
    say(f"inputs: {folder}, {sum(file.stat().st_size for file in uploaded_files(folder)) / 1e6:.1f} MB")
    return _stage_folder(folder, uri, store)


def _stage_folder(folder: Path, uri: str, store: Store, suffixes: tuple[str, ...] = ()) -> str:
    name = folder.name or folder.resolve().name  # what `evaluate` and the report call it
    objects = store.write_folder(folder, uri, name, suffixes)
    content = objects[0].uri.removeprefix(f"{uri}/").partition("/")[0]
    return f"{uri}/{content}/{name}"
