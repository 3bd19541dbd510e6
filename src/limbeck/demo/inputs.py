"""The demo's inputs in the object store: prompts of a seed, and two checkpoints made for it.

Both checkpoints are made at once, each by this module in a process of its own. They are made once for a
seed and this code, and found again afterwards.
"""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from limbeck import local, processes
from limbeck.demo import task
from limbeck.errors import EngineError
from limbeck.inputs import stage_inputs
from limbeck.manifest import digest
from limbeck.progress import say
from limbeck.run_file import RunFile, load_run_file
from limbeck.storage import Store, sha256
from limbeck.variants import REWARDS

Role = Literal["teacher", "student"]
STOP_SECONDS = 2.0
ABLATION = {
    "ppo_rewards": REWARDS,
    "reward_variants": ("reward.source_weight=0", "reward.source_weight=1"),
    "noise_variants": ("label.noise=0.2", "label.noise=0.4"),
}
"""Rewards and sweeps of `limbeck demo --pipeline ablation`: two values beside the run's own, as each costs a
PPO run."""


def stage_demo(seed: int, store: Store, *, ablation: bool = False) -> RunFile:
    """The demo's run file for a seed, with all its inputs in the store.

    Args:
        seed: Of task, models and run.
        store: Where they go.
        ablation: Whether the run file is for the pipeline `ablation`; others do not take its sweeps.

    Raises:
        EngineError: when a checkpoint cannot be made.
    """
    run_file = load_run_file(Path(__file__).with_name("run.yaml"))
    config = run_file.config.model_copy(update={"seed": seed})
    run_file = run_file.model_copy(update={"config": config} | (ABLATION if ablation else {}))
    uri = address(run_file.work_uri, seed)
    store.make_bucket(uri)
    if store.exists(uri):
        say("demo: prompts and checkpoints are there already")
        return run_file.model_copy(update=json.loads(store.read_bytes(uri)))

    with tempfile.TemporaryDirectory(prefix="limbeck-demo-") as scratch:
        folder = Path(scratch)
        split = task.make_split(seed)
        paths = {"prompts": folder / "train.jsonl", "heldout": folder / "heldout.jsonl"}
        write_problems(split.train, paths["prompts"])
        write_problems(split.heldout, paths["heldout"])
        say("demo: making a teacher and a student; this is done once for a seed")
        _make_checkpoints(seed, folder)
        paths |= {role: folder / role for role in get_args(Role)}
        made = run_file.model_copy(update={name: str(path) for name, path in paths.items()})
        staged = stage_inputs(made, store)
    addresses = {name: getattr(staged, name) for name in paths}
    store.write_bytes(uri, json.dumps(addresses).encode())
    return staged


def address(work_uri: str, seed: int) -> str:
    """Where the addresses of a seed's inputs are noted; another seed or other code has another."""
    here = Path(__file__).parent
    code = [sha256(here / "task.py"), sha256(here / "models.py")]
    return f"{work_uri}/demo/{digest([seed, *code])}.json"


def write_problems(problems: Sequence[task.Problem], path: Path) -> None:
    """Write problems as a data set with gold answers, one JSON object a line."""
    lines = [json.dumps({"prompt": problem.prompt, "answer": problem.answer}) for problem in problems]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _make_checkpoints(seed: int, folder: Path) -> None:
    """Make both checkpoints side by side; none outlives this process."""
    makers = {
        role: subprocess.Popen(
            [sys.executable, "-m", "limbeck.demo.inputs", role, str(seed), str(folder / role)],
            env=local.environment(),
            text=True,
            start_new_session=True,
            preexec_fn=processes.dies_with_parent(signal.SIGKILL),  # noqa: PLW1509 - one call, nothing loaded
        )
        for role in get_args(Role)
    }
    try:
        for role, maker in makers.items():
            if status := maker.wait():
                raise EngineError(
                    f"the demo's {role} could not be made",
                    expected="exit status 0",
                    got=str(status),
                    remedy="The reason is above; run the same command again",
                )
    finally:
        for maker in makers.values():
            processes.stop(maker, STOP_SECONDS)


if __name__ == "__main__":
    from transformers.utils.logging import disable_progress_bar

    from limbeck.demo.models import make_checkpoint

    disable_progress_bar()
    chosen, seed_text, target = sys.argv[1:]
    make_checkpoint(
        "teacher" if chosen == "teacher" else "student",
        int(seed_text),
        Path(target),
        lambda line: say(f"demo: {line}"),
    )
