"""A run that nothing stands against: two tiny models and a data set in a real store, and its parameters."""

import shutil
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from limbeck.preflight import Asked, Finding
from limbeck.storage import Store
from tests import tiny

STAGES = ["prepare", "generate", "judge", "label", "sft", "reward", "ppo", "evaluate", "report"]
ROWS = b'{"prompt": "sum a b", "answer": "c"}\n{"prompt": "sum b c", "answer": "e"}\n'
CONFIG: dict[str, Any] = {
    "teacher": {"dtype": "float32"},
    "student": {"dtype": "float32"},
    "engine": {"max_model_len": 64, "kv_cache_mib": 64, "gpu_memory_gib": 80},
    "generate": {"teacher": {"max_tokens": 16}, "student": {"max_tokens": 16}},
    "sft": {"max_length": 64},
    "reward": {"max_length": 64},
    "ppo": {"max_tokens": 16},
    "evaluate": {"max_tokens": 16},
}


def with_settings(asked: Asked, **sections: dict[str, Any]) -> Asked:
    """The same run with some settings changed."""
    changed = {name: asked.config.get(name, {}) | values for name, values in sections.items()}
    return replace(asked, config=asked.config | changed)


def lines(findings: list[Finding]) -> list[str]:
    """Findings as people see them."""
    return [str(finding) for finding in findings]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint; tests change copies of it."""
    return tiny.checkpoint(tmp_path_factory.mktemp("made") / "model")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint, to spoil."""
    return Path(shutil.copytree(made, tmp_path / "model"))


@pytest.fixture(scope="session")
def inputs(made: Path, store: Store) -> str:
    """An address in the store below which lie `teacher`, `student` and `prompts.jsonl`."""
    uri = f"s3://test/{uuid.uuid4().hex[:12]}"
    for role in ("teacher", "student"):
        for path in made.iterdir():
            store.write_file(path, f"{uri}/{role}/{path.name}")
    store.write_bytes(f"{uri}/prompts.jsonl", ROWS)
    return uri


@pytest.fixture
def asked(inputs: str, work_uri: str) -> Asked:
    """The run."""
    return Asked(
        work_uri=work_uri,
        stages=STAGES,
        prompts=f"{inputs}/prompts.jsonl",
        teacher=f"{inputs}/teacher",
        student=f"{inputs}/student",
        config=CONFIG,
    )
