"""A stage that is killed with SIGKILL goes on where it was, on real engines and a real store."""

import json
import re
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from limbeck.manifest import Manifest, commit
from limbeck.records import Completion, Prompt, PseudoLabel
from limbeck.rows import read_part, read_rows, write_rows
from limbeck.storage import Store
from limbeck.trainer.networks import Scorer, load_tokenizer, save_checkpoint
from tests import tiny
from tests.stage_process import finish, start

PATIENCE_SECONDS = 300.0


def settings() -> dict[str, Any]:
    return {
        "teacher": {"dtype": "float32"},
        "student": {"dtype": "float32"},
        "task": {"answer_pattern": r"([a-w])"},
        "engine": {"max_model_len": 64, "kv_cache_mib": 64, "enforce_eager": True},
        "generate": {"teacher": {"samples_per_prompt": 10, "max_tokens": 40}, "rows_per_part": 100},
        "ppo": {
            "num_updates": 60,
            "batch_size": 64,
            "max_tokens": 8,
            "learning_rate": 1e-3,
            "evaluate_every": 20,
            "critic_warmup_updates": 1,
            "deepspeed": {"checkpoint_seconds": 0.5},
        },
    }


def manifest(store: Store, path: Path, uri: str, kind: str, objects: Any) -> dict[str, str]:
    """Commit a manifest and put it into an artifact."""
    made = commit(
        store,
        Manifest(
            stage="test",
            kind=kind,
            name=kind,
            uri=uri,
            objects=tuple(objects),
            inputs={},
            config_hash="",
            code_version="",
            num_rows=1,
        ),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(made.to_json())
    return {"path": str(path)}


def prompts(store: Store, work_uri: str, folder: Path, count: int) -> dict[str, str]:
    """An artifact of prompts."""
    letters = "abcdefghijklmnopqrstuvw"
    rows = [
        Prompt(prompt_id=f"{n:016x}", prompt=f"sum {letters[n % 23]} {letters[n // 23 % 23]}")
        for n in range(count)
    ]
    uri = f"{work_uri}/prompts"
    return manifest(store, folder / "prompts", uri, "prompts", [write_rows(store, uri, rows)])


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


@pytest.fixture
def ppo_arguments(store: Store, work_uri: str, tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """Everything the component `ppo` takes, on tiny models."""
    student = tiny.checkpoint(tmp_path / "student", seed=3)
    scorer = save_checkpoint(Scorer(student, "float32", None), load_tokenizer(student), tmp_path / "scorer")
    asked = prompts(store, work_uri, tmp_path, count=100)
    labels = [
        PseudoLabel(
            prompt_id=f"{n:016x}",
            answer="w",
            vote_share=1.0,
            num_votes=3,
            reason="labelled",
            validation=n < 10,
        )
        for n in range(100)
    ]
    uri = f"{work_uri}/labels"
    given = {
        "prompts": asked,
        "labels": manifest(store, tmp_path / "labels", uri, "labels", [write_rows(store, uri, labels)]),
        "checkpoint": manifest(
            store,
            tmp_path / "checkpoint",
            f"{work_uri}/student",
            "checkpoint",
            store.write_folder(student, f"{work_uri}/student"),
        ),
        "reward_model": manifest(
            store,
            tmp_path / "reward",
            f"{work_uri}/reward",
            "reward_model",
            store.write_folder(scorer, f"{work_uri}/reward"),
        ),
        "config": settings(),
        "reward": "agreement",
    }
    return lambda prefix: {
        **given,
        "work_uri": f"{work_uri}/{prefix}",
        "policy": {"path": str(tmp_path / prefix / "policy")},
        "metrics": {"path": str(tmp_path / prefix / "metrics")},
    }


def history(store: Store, artifact: Path) -> list[dict[str, float]]:
    """What PPO measured, update by update."""
    made = Manifest.model_validate_json(artifact.read_text())
    (item,) = [item for item in made.objects if item.uri.endswith("/history.jsonl")]
    return [json.loads(line) for line in store.read_bytes(item.uri).decode().splitlines()]


def test_ppo_goes_on_from_its_last_checkpoint(
    store: Store, work_uri: str, tmp_path: Path, ppo_arguments: Callable[[str], dict[str, Any]]
) -> None:
    def saved() -> bool:
        return any(uri.endswith("/state/LATEST") for uri in store.sizes(f"{work_uri}/killed"))

    process = start("ppo", tmp_path / "killed", **ppo_arguments("killed"))
    kill_when(process, saved)
    output = finish("ppo", tmp_path / "killed", **ppo_arguments("killed"))
    resumed = re.search(r"ppo\(agreement\): (\d+)/60 updates are there already, going on", output)
    assert resumed, output[-3000:]
    assert 0 < int(resumed[1]) < 60
    finish("ppo", tmp_path / "unbroken", **ppo_arguments("unbroken"))
    one, other = (history(store, tmp_path / side / "policy") for side in ("killed", "unbroken"))
    assert [entry["update"] for entry in one] == list(range(61))
    # The same rounds with the same draws: the curves lie on each other.
    for a, b in zip(one[1:], other[1:], strict=True):
        assert a["ppo/score"] == pytest.approx(b["ppo/score"], abs=0.05)
    assert output.count("ppo(agreement): best policy") == 1
    again = finish("ppo", tmp_path / "killed", **ppo_arguments("killed"))
    assert "ppo(agreement): already complete" in again
