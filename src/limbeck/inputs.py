"""Brings what a run file names on this machine into the object store, where every stage can reach it."""

from pathlib import Path

from limbeck.config import Config, ModelConfig, RunFile
from limbeck.errors import ConfigError
from limbeck.models import check_folder
from limbeck.progress import say
from limbeck.storage import Store, sha256

SUFFIXES = (".jsonl", ".json", ".parquet")


def check_inputs(config: Config) -> None:
    """Check the local files and folders that settings name, before anything starts.

    Raises:
        ConfigError: when one is missing or has an unknown suffix.
        DataError: when a model folder is not a checkpoint that can be used.
    """
    for key, path in (("data.prompts", config.data.prompts), ("data.heldout", config.data.heldout)):
        if path is not None and _is_local(path):
            _check_data(key, Path(path).expanduser())
    for key, model in (("teacher.path", config.teacher), ("student.path", config.student)):
        if _is_local(model.path):
            folder = Path(model.path).expanduser()
            if not folder.is_dir():
                raise ConfigError(
                    f"no such folder in `config.{key}`",
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
    config = run_file.config
    check_inputs(config)
    store.make_bucket(run_file.work_uri)
    uri = f"{run_file.work_uri.rstrip('/')}/inputs"
    staged = config.model_copy(
        update={
            "data": config.data.model_copy(
                update={
                    "prompts": _stage_file(config.data.prompts, uri, store),
                    "heldout": config.data.heldout and _stage_file(config.data.heldout, uri, store),
                }
            ),
            "teacher": _stage_model(config.teacher, uri, store),
            "student": _stage_model(config.student, uri, store),
        }
    )
    return run_file.model_copy(update={"config": staged})


def _is_local(path: str) -> bool:
    return "://" not in path


def _check_data(key: str, path: Path) -> None:
    if not path.is_file():
        raise ConfigError(
            f"no such file in `config.{key}`",
            expected="JSONL or Parquet with a column `prompt`",
            got=str(path),
            remedy="Correct the path; it is relative to where you run the command",
        )
    if path.suffix not in SUFFIXES:
        raise ConfigError(
            f"unknown kind of file in `config.{key}`",
            expected=", ".join(SUFFIXES),
            got=path.name,
            remedy="Convert it, or rename it if it is one of these",
        )


def _stage_file(path: str, uri: str, store: Store) -> str:
    if not _is_local(path):
        return path
    file = Path(path).expanduser()
    say(f"inputs: {file}, {file.stat().st_size / 1e6:.1f} MB")
    return store.write_file(file, f"{uri}/{sha256(file)[:16]}/{file.name}").uri


def _stage_model(model: ModelConfig, uri: str, store: Store) -> ModelConfig:
    if not _is_local(model.path):
        return model
    folder = Path(model.path).expanduser()
    say(f"inputs: {folder}, {sum(path.stat().st_size for path in folder.rglob('*')) / 1e6:.1f} MB")
    first = store.write_folder(folder, uri)[0]
    content = first.uri.removeprefix(f"{uri}/").partition("/")[0]
    return model.model_copy(update={"path": f"{uri}/{content}"})
