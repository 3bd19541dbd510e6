"""A trainer that remembers what it was given, and inputs for it; the real ones are in tests/trainer."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from limbeck.manifest import Manifest, commit
from limbeck.records import Row
from limbeck.rows import write_rows
from limbeck.storage import Store


@dataclass
class Trainer:
    """Remembers its arguments and gives what it was made with."""

    gives: dict[str, Any]
    calls: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, **arguments: Any) -> Any:
        self.calls.append(arguments)
        folder = arguments["folder"] / "result"
        folder.mkdir()
        (folder / "model.safetensors").write_text("weights")
        return SimpleNamespace(folder=folder, **self.gives)


def given(
    store: Store, uri: str, kind: str, rows: list[Row], metrics: dict[str, float] | None = None
) -> Manifest:
    return commit(
        store,
        Manifest(
            stage="test",
            kind=kind,
            name=kind,
            uri=uri,
            objects=(write_rows(store, uri, rows),),
            inputs={},
            config_hash="",
            code_version="",
            num_rows=len(rows),
            metrics=metrics or {},
        ),
    )
