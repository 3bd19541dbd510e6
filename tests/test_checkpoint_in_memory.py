"""`engine.checkpoint_in_memory`: a checkpoint never reaches the disk on its way from the store to vLLM."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from limbeck.storage import Store
from tests import tiny
from tests.given import artifact, prompts
from tests.stage_process import start

SETTINGS = {
    "teacher": {"dtype": "float32"},
    "task": {"answer_pattern": r"([a-w])"},
    "engine": {
        "max_model_len": 64,
        "kv_cache_mib": 64,
        "enforce_eager": True,
        "checkpoint_in_memory": True,
    },
    "generate": {"teacher": {"samples_per_prompt": 1, "max_tokens": 8}},
}


def test_the_model_lies_in_memory_while_the_engine_runs(
    store: Store,
    work_uri: str,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scratch = tmp_path_factory.mktemp("t")  # vLLM's sockets lie there: a short name
    monkeypatch.setenv("TMPDIR", str(scratch))
    uri = f"{work_uri}/checkpoint"
    objects = store.write_folder(tiny.checkpoint(tmp_path / "model"), uri)
    process = start(
        "generate",
        tmp_path / "made",
        prompts=prompts(store, work_uri, tmp_path, count=4),
        work_uri=work_uri,
        config=SETTINGS,
        completions={"path": str(tmp_path / "made" / "completions")},
        model="",
        role="teacher",
        shard=0,
        num_shards=1,
        checkpoint=artifact(store, tmp_path, uri, "checkpoint", objects),
    )
    seen = set()
    with ThreadPoolExecutor() as pool:
        said = pool.submit(process.communicate)
        while not said.done():
            for place in ("/dev/shm", str(scratch)):
                with contextlib.suppress(FileNotFoundError):  # a folder that goes while it is looked into
                    if any(Path(place).glob("limbeck-*/*/model/**/model.safetensors")):
                        seen.add(place)
            time.sleep(0.05)
    assert process.returncode == 0, said.result()[0][-5000:]
    assert seen == {"/dev/shm"}
    assert not any(Path("/dev/shm").glob("limbeck-*"))
