"""What a training gives in one process, and in one of several: the same cases by the same code.

python -m tests.trainer.processes_cases BASE FOLDER     run by torchrun
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

from limbeck.config import Config, parse_config
from limbeck.records import LabelledCompletion
from limbeck.trainer import ranks
from limbeck.trainer.reward import train_reward
from limbeck.trainer.sft import train_sft
from limbeck.trainer.worker import end
from tests import saving

LETTERS = "abcdefghijklmnop"


class Case(NamedTuple):
    """One training. Those of one kind give the same result, whatever the ZeRO stage."""

    training: str
    kind: str
    zero_stage: int
    settings: dict[str, Any]
    deepspeed: dict[str, Any]
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.training}, {self.kind}, ZeRO-{self.zero_stage}"

    def config(self) -> Config:
        """Three updates of a batch that two processes share unevenly: their completions differ in length."""
        shared = {"batch_size": 8, "micro_batch_size": 2, "learning_rate": 1e-2, "num_epochs": 1.0}
        deepspeed = {"zero_stage": self.zero_stage, **self.deepspeed}
        section = {**shared, **self.settings, "deepspeed": deepspeed}
        return parse_config({"student": {"dtype": self.dtype}, self.training: section})


LORA = {"lora_rank": 3, "lora_alpha": 64.0}
CASES = [
    *(Case("sft", "all weights", stage, {}, {}) for stage in (1, 2, 3)),
    Case("sft", "LoRA", 3, {"packing": True}, LORA),
    Case("sft", "bfloat16", 2, {}, {}, "bfloat16"),
    *(Case("reward", "all weights", stage, {"evaluate_every": 2}, {}) for stage in (1, 2, 3)),
    Case("reward", "pairs, LoRA, bfloat16", 3, {"loss": "bradley_terry", "packing": True}, LORA, "bfloat16"),
]


def rows() -> list[LabelledCompletion]:
    """Completions of both sources, good and bad, long and short.

    23 a source are learnt, which no batch divides; so many are kept that they are scored in three passes.
    """
    return [
        LabelledCompletion(
            completion_id=f"{n}{source}",
            prompt_id=f"{n // 2}",
            prompt=f"sum {LETTERS[n % 16]} {LETTERS[n // 2 % 16]}",
            source=source,
            text=f"{'= ' * (1 + n % 7)}{'w' if n % 2 else 'v'}",
            pseudo_reward=float(n % 2),
            vote_share=1.0,
            selected=True,
            validation=n >= 23,
        )
        for source in ("teacher", "student")
        for n in range(283)
    ]


def train(case: Case, base: Path, folder: Path) -> dict[str, Any]:
    """Train, and give the history and the scores; the checkpoint lies in `folder`."""
    given = rows()
    learnt = [row for row in given if not row.validation]
    if case.training == "sft":
        pairs = [(row.prompt, row.text) for row in learnt]
        run = train_sft(base, pairs, case.config(), folder, "sft", None, saving.no_saver())
        return {"history": run.history, "folder": str(run.folder), "scores": []}
    held = [row for row in given if row.validation]
    made = train_reward(base, learnt, held, case.config(), folder, None, saving.no_saver())
    return {
        "history": made.history,
        "folder": str(made.folder),
        "scores": made.validation_scores.tolist(),
    }


if __name__ == "__main__":
    base, out = (Path(argument) for argument in sys.argv[1:])
    for case in CASES:
        made = train(case, base, out / case.name)
        if ranks.leads():
            (out / f"{case.name}.json").write_text(json.dumps(made))
            shutil.rmtree(out / case.name / "trainer", ignore_errors=True)
    end(0)
