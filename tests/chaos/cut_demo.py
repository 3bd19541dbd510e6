"""The demo, cut so that a stage takes seconds: its models and its first prompts, with fewer of everything."""

import json
import tempfile
from pathlib import Path

import yaml

from limbeck.demo import task
from limbeck.demo.inputs import stage_demo, write_problems
from limbeck.inputs import stage_inputs
from limbeck.storage import Store

WORK_URI = "s3://limbeck/chaos"
NUM_PROMPTS, NUM_HELDOUT = 240, 60
ROWS_PER_PART = 60
OFTEN = {"checkpoint_seconds": 1.0}
SETTINGS = {
    "engine": {"max_num_seqs": 32},
    "generate": {
        "rows_per_part": ROWS_PER_PART,
        "commit_seconds": 1.0,
        "teacher": {"samples_per_prompt": 4},
        "student": {"samples_per_prompt": 2},
    },
    "label": {"validation_prompts": 40},
    "restart_seconds": 1.0,
    "sft": {"num_epochs": 6, "deepspeed": OFTEN},
    "reward": {"min_auc": 0.0, "evaluate_every": 10, "deepspeed": OFTEN},
    "ppo": {
        "num_updates": 16,
        "batch_size": 128,
        "critic_warmup_updates": 2,
        "validation_samples": 2,
        "deepspeed": OFTEN,
    },
}


def write_run_file(seed: int, store: Store, path: Path) -> None:
    """Bring the inputs into the store, and write a run file that names them."""
    whole = stage_demo(seed, store)
    split = task.make_split(seed, num_train=NUM_PROMPTS, num_heldout=NUM_HELDOUT)
    with tempfile.TemporaryDirectory() as scratch:
        paths = {"prompts": Path(scratch) / "train.jsonl", "heldout": Path(scratch) / "heldout.jsonl"}
        write_problems(split.train, paths["prompts"])
        write_problems(split.heldout, paths["heldout"])
        changes = {"work_uri": WORK_URI, "ppo_rewards": ("mixed",), **{k: str(p) for k, p in paths.items()}}
        cut = stage_inputs(whole.model_copy(update=changes), store)
    values = json.loads(cut.model_dump_json(exclude_unset=True))
    values["config"] = _merged(values["config"], SETTINGS)
    path.write_text(yaml.safe_dump(values), encoding="utf-8")


def _merged(whole: dict[str, object], changes: dict[str, object]) -> dict[str, object]:
    """Settings with some replaced, sections within sections too."""
    merged = dict(whole)
    for name, value in changes.items():
        inner = merged.get(name)
        if isinstance(value, dict) and isinstance(inner, dict):
            merged[name] = _merged(inner, value)
        else:
            merged[name] = value
    return merged
