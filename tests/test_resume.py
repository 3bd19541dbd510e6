"""A stage that is killed with SIGKILL goes on where it was, on real engines and a real store."""

import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from limbeck.manifest import Manifest
from limbeck.records import Completion
from limbeck.rows import read_part, read_rows
from limbeck.storage import Store
from tests import tiny
from tests.given import prompts
from tests.stage_process import finish, start

pytestmark = pytest.mark.usefixtures("forked_engines")
PATIENCE_SECONDS = 300.0


def settings() -> dict[str, Any]:
    return {
        "teacher": {"dtype": "float32"},
        "student": {"dtype": "float32"},
        "task": {"answer_pattern": r"([a-w])"},
        "engine": {"max_model_len": 64, "kv_cache_mib": 64, "enforce_eager": True},
        "generate": {"teacher": {"samples_per_prompt": 10, "max_tokens": 40}, "rows_per_part": 100},
    }


def kill_when(process: Any, ready: Callable[[], bool]) -> str:
    """SIGKILL a process at a moment of its work, and give what it said."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not ready():
        assert process.poll() is None, process.communicate()[0][-5000:]
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    return str(process.communicate()[0])


def test_generate_asks_only_for_rows_that_are_missing(store: Store, work_uri: str, tmp_path: Path) -> None:
    """Killed twice, at two moments; what had to be sampled again is bounded each time."""
    teacher = str(tiny.checkpoint(tmp_path / "teacher", width=256))
    asked = prompts(store, work_uri, tmp_path, count=400)
    in_flight, per_part = 2 * 16, 100
    config = settings()
    config["engine"]["max_num_seqs"] = 16
    config["generate"]["commit_seconds"] = 0.2

    def arguments(prefix: str) -> dict[str, Any]:
        return {
            "prompts": asked,
            "work_uri": f"{work_uri}/{prefix}",
            "config": config,
            "completions": {"path": str(tmp_path / prefix / "completions")},
            "model": teacher,
            "role": "teacher",
            "shard": 0,
            "num_shards": 1,
            "checkpoint": None,
        }

    def parts() -> list[str]:
        """Whole ones and loose ones."""
        return [uri for uri in store.sizes(f"{work_uri}/killed") if "/part-" in uri or "/loose-" in uri]

    def whole_parts(count: int) -> bool:
        return sum("/part-" in uri for uri in parts()) >= count

    def rows(side: str) -> list[Completion]:
        made = Manifest.model_validate_json((tmp_path / side / "completions").read_text())
        return read_rows(store, made, Completion)

    finish("generate", tmp_path / "unbroken", **arguments("unbroken"))
    unbroken = rows("unbroken")
    place = {row.completion_id: number for number, row in enumerate(unbroken)}
    assert len(place) == 4000
    kept: list[int] = []
    for moment in (2, 15):
        process = start("generate", tmp_path / "killed", **arguments("killed"))
        output = kill_when(process, partial(whole_parts, moment))
        if kept:
            assert f"generate(teacher): {kept[-1]}/4000 completions are there already, going on" in output
        items = [item for uri in parts() if (item := store.stored(uri))]
        found = {row.completion_id for item in items for row in read_part(store, item, Completion)}
        kept.append(len(found))
        # Rows are handed out in order: those before the last stored one that are not stored were lost.
        last = max(place[key] for key in found)
        lost = [row for row in unbroken[: last + 1] if row.completion_id not in found]
        assert len(lost) <= in_flight + per_part
        assert sum(row.num_tokens for row in lost) <= (in_flight + per_part) * 40
    assert kept[0] < kept[1] < 4000
    assert not (tmp_path / "killed" / "completions").exists()
    output = finish("generate", tmp_path / "killed", **arguments("killed"))
    assert f"generate(teacher): {kept[1]}/4000 completions are there already, going on" in output
    assert rows("killed") == unbroken
    assert not any("/loose-" in uri for uri in store.sizes(f"{work_uri}/killed"))
