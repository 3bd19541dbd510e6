"""Files and folders that parameters name, on this machine or in the object store; none is fetched whole."""

from dataclasses import dataclass
from pathlib import Path

from limbeck.errors import ConfigError, DataError
from limbeck.keys import uploaded_files
from limbeck.preflight.probes import ProbedStore
from limbeck.sources import hub


def is_stored(path: str) -> bool:
    """Whether an address is one of the object store."""
    return "://" in path and not hub.is_hub(path)


@dataclass(frozen=True)
class Place:
    """One file or folder."""

    key: str
    """The parameter that names it."""
    path: str
    """Its address, as messages say it."""
    store: ProbedStore | None
    """None where it is not needed: the place is on this machine."""

    def sizes(self) -> dict[str, int]:
        """Bytes of each file that lies directly in the folder, by name.

        Raises:
            ConfigError: when a local folder is not there.
            StorageError: when the store does not list it.
        """
        if self.store and is_stored(self.path):
            base = self.path.rstrip("/") + "/"
            found = {uri.removeprefix(base): size for uri, size in self.store.sizes(self.path).items()}
            return {name: size for name, size in found.items() if "/" not in name}
        folder = Path(self.path).expanduser()
        if not folder.is_dir():
            raise ConfigError(
                f"no such folder in `{self.key}`",
                expected="a Hugging Face checkpoint folder or an s3:// URI",
                got=self.path,
                remedy="Correct the path; on a cluster give an s3:// URI",
            )
        return {item.name: item.stat().st_size for item in sorted(folder.iterdir()) if item.is_file()}

    def below(self) -> dict[str, int]:
        """Bytes of each file anywhere below the folder, by name; none when it is a file, or not there.

        Raises:
            StorageError: when the store does not list it, or a local link leads out of the folder.
        """
        if self.store and is_stored(self.path):
            base = self.path.rstrip("/") + "/"
            return {uri.removeprefix(base): size for uri, size in self.store.sizes(self.path).items()}
        folder = Path(self.path).expanduser()
        files = uploaded_files(folder) if folder.is_dir() else []
        return {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}

    def size(self, name: str = "") -> int:
        """Bytes of the file, or of one in the folder.

        Raises:
            DataError: when it is not there.
        """
        path = self._file(name)
        if self.store and is_stored(path):
            item = self.store.stored(path)
            size = item.bytes if item else None
        else:
            file = Path(path).expanduser()
            size = file.stat().st_size if file.is_file() else None
        if size is None:
            raise DataError(
                f"no such file in `{self.key}`",
                where=path,
                expected="a file on this machine or an s3:// URI",
                remedy="Correct the address; on a cluster give an s3:// URI",
            )
        return size

    def read(self, first: int, count: int, name: str = "") -> bytes:
        """Up to `count` bytes from byte `first` on, of the file or of one in the folder."""
        path = self._file(name)
        if count <= 0:
            return b""
        if self.store and is_stored(path):
            return self.store.read_range(path, first, count)
        with Path(path).expanduser().open("rb") as file:
            file.seek(first)
            return file.read(count)

    def _file(self, name: str) -> str:
        return f"{self.path.rstrip('/')}/{name}" if name else self.path
