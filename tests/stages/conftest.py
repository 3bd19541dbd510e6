"""Data that several stages' tests start from."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from limbeck.config import Config, parse_config
from limbeck.stages.prepare import Prepared
from limbeck.stages.prepare import run as prepare
from limbeck.storage import Store
from tests.made_run import Maker

ConfigFor = Callable[..., Config]


@pytest.fixture
def config_for() -> ConfigFor:
    """Make settings; sections can be given."""

    def make(**sections: Any) -> Config:
        return parse_config({"task": {"answer_pattern": r"= (\w+)"}, **sections})

    return make


def put(store: Store, uri: str, content: bytes) -> None:
    """Upload bytes as a data file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data"
        path.write_bytes(content)
        store.write_file(path, uri)


@pytest.fixture
def prepared(store: Store, work_uri: str, config_for: ConfigFor) -> Prepared:
    """40 prompts `sum 0` to `sum 39` with gold answers, a part of them held out."""
    rows = [json.dumps({"prompt": f"sum {n}", "answer": n}) for n in range(40)]
    put(store, f"{work_uri}/in/data.jsonl", "\n".join(rows).encode())
    return prepare(
        f"{work_uri}/in/data.jsonl", "", config_for(prepare={"heldout_fraction": 0.3}), store, work_uri
    )


@pytest.fixture
def maker(store: Store, work_uri: str, tmp_path: Path) -> Maker:
    return Maker(store, work_uri, tmp_path)
