"""Where an export goes: a local folder or the object store. Neither shows anything that is not whole."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from limbeck import lease
from limbeck.errors import ConfigError
from limbeck.export.chosen import Chosen
from limbeck.export.folder import write
from limbeck.export.origins import Asked
from limbeck.manifest import Manifest, code_version, commit, digest, find, input_hashes
from limbeck.progress import say
from limbeck.storage import Store


def export_to_folder(store: Store, chosen: Chosen, asked: Asked, folder: Path) -> None:
    """Write an export on this machine: into a hidden folder beside it, which is then renamed.

    Args:
        store: Where the checkpoint lies.
        chosen: What goes out; see `Chosen.check`.
        asked: What a person says of the run.
        folder: Must not be there yet, or be empty.

    Raises:
        ConfigError: when it is there, or cannot be written.
        DataError: when the checkpoint is no whole model.
        StorageError: when a file is gone or corrupt.
    """
    if folder.is_symlink() or (folder.exists() and not _is_empty(folder)):
        raise ConfigError(
            "there is something already",
            where=f"--to {folder}",
            expected="a folder that is not there yet",
            remedy="Give another name, or remove it",
        )
    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        with _beside(folder.absolute()) as scratch:
            write(store, chosen, asked, scratch)
            scratch.rename(folder)
    except OSError as error:
        raise ConfigError("cannot write the export", where=f"--to {folder}", got=str(error)) from error
    say(f"export: {chosen.checkpoint.name} is in {folder}")


def export_to_store(
    store: Store, chosen: Chosen, asked: Asked, uri: str, *, leased: bool = False
) -> Manifest:
    """Write an export below `{uri}/{hash of the content}/`, and its manifest last.

    Args:
        store: Where the checkpoint lies, and where the export goes.
        chosen: What goes out; see `Chosen.check`.
        asked: What a person says of the run.
        uri: An address of its own.
        leased: Whether it lies among the outputs of stages, where `limbeck gc` looks for leases.

    Returns:
        The manifest: of a checkpoint, so that other stages take it for one.

    Raises:
        ConfigError: when another export is there.
        DataError: when the checkpoint is no whole model.
        LeaseError: when another attempt is at work there.
        StorageError: when the store cannot be used, or a file is gone or corrupt.
    """
    inputs, said = input_hashes(checkpoint=chosen.checkpoint, source=chosen.source), digest(asked)
    if complete := find(store, uri):
        # One by other code may have another card, but is whole and of the same model.
        if (complete.inputs, complete.config_hash) != (inputs, said):
            raise ConfigError(
                "another export is there already",
                where=uri,
                expected=f"nothing, or {chosen.checkpoint.name} from {chosen.source.uri}",
                got=f"{complete.name}, content {complete.content_hash}",
                remedy="Give another address",
            )
        say(f"export: {complete.name} is at {uri} already")
        return complete
    with lease.held(store, uri, "export") if leased else nullcontext() as held:
        with tempfile.TemporaryDirectory() as scratch:
            write(store, chosen, asked, Path(scratch))
            objects = store.write_folder(Path(scratch), uri)
        made = Manifest(
            stage="export",
            kind="checkpoint",
            name=chosen.checkpoint.name,
            uri=uri,
            objects=objects,
            inputs=inputs,
            config_hash=said,
            code_version=code_version("export"),
        )
        say(f"export: {made.name} is at {uri}")
        return commit(store, made, held)


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A hidden folder on the same disk, which is gone afterwards whatever happens."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    scratch.chmod(0o755)  # as a folder that people make
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())
