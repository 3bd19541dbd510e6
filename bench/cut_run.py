"""A run for benchmarks of what is around the work: the whole pipeline on tiny models with random weights.

The demo's own models take minutes to make and change nothing of the fixed costs: imports, engines, tasks.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from tests import tiny

LETTERS = "abcdefghijklmnopqrstuvw"
SETTINGS = {
    "teacher": {"dtype": "float32"},
    "student": {"dtype": "float32"},
    "task": {"answer_pattern": "([a-w])"},
    "engine": {"max_model_len": 64, "kv_cache_mib": 64, "enforce_eager": True},
    "prepare": {"heldout_fraction": 0.3},
    "generate": {
        "teacher": {"samples_per_prompt": 6, "max_tokens": 8},
        "student": {"samples_per_prompt": 4, "max_tokens": 8},
    },
    "judge": {"template": "judge {prompt} : {completion}"},
    "label": {"min_p_correct": 0.0, "min_vote_share": 0.1, "validation_prompts": 20},
    "sft": {"learning_rate": 3e-3, "num_epochs": 1, "batch_size": 16},
    "reward": {"learning_rate": 3e-3, "min_auc": 0.0, "evaluate_every": 5, "batch_size": 16},
    "ppo": {"num_updates": 3, "batch_size": 32, "max_tokens": 8, "evaluate_every": 2},
    "evaluate": {"max_tokens": 8, "samples_per_prompt": 2},
    "report": {"num_resamples": 200},
}


def write(folder: Path, num_shards: int = 2) -> Path:
    """Data, two checkpoints and a run file, with the demo's rewards; seeded."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)  # noqa: S311
    rows = [{"prompt": f"sum {' '.join(rng.sample(LETTERS, 4))}", "answer": "c"} for _ in range(160)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny.checkpoint(folder / "teacher", seed=0, width=64)
    tiny.checkpoint(folder / "student", seed=1)
    values = {
        "work_uri": "s3://limbeck/cut",
        "num_shards": num_shards,
        "ppo_rewards": ["model", "mixed", "agreement"],
        "prompts": str(folder / "prompts.jsonl"),
        "teacher": str(folder / "teacher"),
        "student": str(folder / "student"),
        "config": SETTINGS,
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def lines(run_file: Path, out: Path, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """`limbeck run` to its end; gives each line of its screen when it comes."""
    yield from lines_of("run", str(run_file), "--out", str(out), env=env)


def lines_of(*arguments: str, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """The same of any command of `limbeck`; `env` over this process's variables."""
    command = [sys.executable, "-m", "limbeck.cli", *arguments]
    variables = dict(os.environ) | dict(env or {})
    with tempfile.TemporaryFile("w+") as errors:
        run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=variables)
        for line in run.stdout or ():
            yield line.rstrip("\n")
        if run.wait():
            errors.seek(0)
            raise subprocess.CalledProcessError(run.returncode, command, stderr=errors.read())
