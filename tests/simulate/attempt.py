"""Attempts of `generate`, each in a process of its own, with a scripted engine: what dies without a word.

python -m tests.simulate.attempt WORK_URI COMMIT_SECONDS NUM_SHARDS SHARD:DIE_AFTER...
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from limbeck import local
from limbeck.config import Config, parse_config
from limbeck.manifest import Manifest, commit
from limbeck.records import Prompt
from limbeck.rows import write_rows
from limbeck.shards import Shard
from limbeck.stages import generate
from limbeck.storage import Store
from tests.fakes import ScriptedSampler

ROOT = Path(__file__).parents[2]
NUM_PROMPTS, SAMPLES, ROWS_PER_PART = 32, 5, 20
NUM_ROWS = NUM_PROMPTS * SAMPLES


def prompts(store: Store, work_uri: str) -> Manifest:
    """Rows to answer, in one part."""
    rows = [Prompt(prompt_id=f"{number:016x}", prompt=f"sum {number}") for number in range(NUM_PROMPTS)]
    uri = f"{work_uri}/prompts"
    manifest = Manifest(
        stage="prepare",
        kind="prompts",
        name="prompts",
        uri=uri,
        objects=(write_rows(store, uri, rows),),
        inputs={},
        config_hash="",
        code_version="",
        num_rows=NUM_PROMPTS,
    )
    return commit(store, manifest)


def run(
    endpoint: str, work_uri: str, commit_seconds: float, num_shards: int, attempts: Sequence[tuple[int, int]]
) -> None:
    """Attempts one after another: the shard, and after so many rows it dies; 0: it lives."""
    command = [sys.executable, "-m", "tests.simulate.attempt", work_uri, str(commit_seconds), str(num_shards)]
    environment = local.environment() | {"AWS_ENDPOINT_URL": endpoint}
    told = [f"{shard}:{rows}" for shard, rows in attempts]
    subprocess.run([*command, *told], cwd=ROOT, env=environment, check=True)


def config(commit_seconds: float) -> Config:
    """Small parts."""
    return parse_config(
        {
            "task": {"answer_pattern": r"= (\w+)"},
            "generate": {
                "teacher": {"samples_per_prompt": SAMPLES},
                "rows_per_part": ROWS_PER_PART,
                "commit_seconds": commit_seconds,
            },
        }
    )


def main(work_uri: str, shard: Shard, die_after: int, commit_seconds: float) -> None:
    """Answer in order, one row at a time."""
    answered = 0

    def answer(prompt: str, seed: int | None) -> str:
        nonlocal answered
        if die_after and answered == die_after:
            os._exit(1)
        answered += 1
        return f"= {seed}"

    store = Store()
    manifest = Manifest.model_validate_json(store.read_bytes(f"{work_uri}/prompts/manifest.json"))
    sampler = ScriptedSampler(answer, at_once=1)
    settings = config(commit_seconds)
    generate.run(manifest, "model", lambda: sampler, settings, store, work_uri, role="teacher", shard=shard)


if __name__ == "__main__":
    address, seconds, count, *attempts = sys.argv[1:]
    for index, rows in (map(int, told.split(":")) for told in attempts):
        child = os.fork()  # before there is any thread: every attempt has a client of its own
        if not child:
            main(address, Shard(index=index, count=int(count)), rows, float(seconds))
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status != bool(rows):
            sys.exit(f"an attempt of {rows} rows ended with {status}")
