"""Limbeck's side of `bench.ppo`: `train_ppo` or its `rloo`, one update a turn.

python -m bench.ppo_ours FOLDER SETTING ALGORITHM --figures N     run by bench.ppo

SETTING is JSON. FOLDER holds the models; the sampler is in this process, so its seconds and memory count.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from bench.ppo_settings import WANTED, Setting, questions
from bench.turns import Turns, peak
from limbeck import local
from limbeck.config import Config, EngineConfig, parse_config
from limbeck.records import PpoPrompt
from limbeck.refining import open_policy
from limbeck.sampler import VllmSampler
from limbeck.trainer.group_relative import train_group_relative
from limbeck.trainer.ppo import train_ppo

UPDATES = 10_000
"""More than are ever asked for."""


class Hook:
    """A saver that saves nothing: the training asks it between two updates, and so takes its turns."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._earned: list[bool] = []

    def agrees(self, text: str, label: str) -> bool:
        """Whether a completion has the wanted word; noted."""
        self._earned.append(label in text.split())
        return self._earned[-1]

    def begin(self, step: int) -> None:
        """The models are loaded."""
        self._turns.end()

    def due(self) -> bool:
        """An update is done."""
        reward = sum(self._earned) / len(self._earned) if self._earned else 0.0
        self._turns.end(reward=reward, peak=peak())
        self._earned = []
        return False

    def save(self, step: int, folder: Path) -> None:
        """Never asked."""

    def interruptible(self, step: int, save: Callable[[], None]) -> AbstractContextManager[None]:
        """No signal comes."""
        return nullcontext()


def main() -> None:
    """Train until the parent has enough."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("setting")
    parser.add_argument("algorithm")
    parser.add_argument("--figures", type=int, required=True)
    asked = parser.parse_args()
    setting = Setting(**json.loads(asked.setting))
    hook = Hook(Turns(asked.figures))
    config = _config(setting, asked.algorithm)
    prompts = [
        PpoPrompt(prompt_id=str(number), message=message, label=WANTED)
        for number, message in enumerate(questions(setting))
    ]
    sampler = open_policy(
        asked.folder / "student",
        lambda folder: VllmSampler(folder, config.student, config.engine),
        config,
    )
    if asked.algorithm == "ppo":  # TRL's PPOTrainer is given token ids
        for prompt in prompts:
            sampler.prompt_ids(prompt.message)
    train = train_ppo if asked.algorithm == "ppo" else train_group_relative
    with tempfile.TemporaryDirectory() as folder:
        train(
            asked.folder / "student",
            asked.folder / "reward",
            sampler,
            prompts,
            prompts[:1],
            hook.agrees,
            "agreement" if setting.rule else "model",
            config,
            Path(folder),
            None,
            hook,
        )


def _config(setting: Setting, algorithm: str) -> Config:
    length = setting.prompt_tokens + setting.completion_tokens
    # As many tokens as are ever in flight, and no more.
    cache = 2 * 4 * setting.layers * setting.kv_heads * setting.head_width * setting.batch * (length + 16)
    return parse_config(
        {
            "student": {"dtype": setting.dtype},
            "engine": EngineConfig(
                max_model_len=length + 16,
                max_num_seqs=setting.batch,
                kv_cache_mib=cache // 2**20 + 2,
                enforce_eager=not local.has_gpu(),
            ).model_dump(),
            "reward": {"max_length": length + 16},
            "ppo": {
                "algorithm": algorithm,
                "num_updates": UPDATES,
                "evaluate_every": UPDATES,
                "batch_size": setting.batch,
                "samples_per_prompt": 1 if algorithm == "ppo" else setting.group,
                "num_ppo_epochs": setting.epochs,
                "num_minibatches": setting.minibatches,
                "micro_batch_size": setting.pass_rows,
                # Of a packed pass attention costs the square of all its tokens: no more than in an update.
                "forward_batch_size": None
                if setting.packing
                else min(setting.forward_rows, setting.batch) // 2,
                "packing": setting.packing,
                "sampler": setting.sampler,
                "old_logprobs": "engine" if setting.told else "trainer",
                "max_tokens": setting.completion_tokens,
                "learning_rate": setting.learning_rate,
                "value_learning_rate": setting.learning_rate,
                "anneal_lr": False,
                "kl_coef": setting.kl_coef,
                "max_grad_norm": 1.0 if algorithm == "rloo" else 1e9,
                "missing_eos_penalty": 0.0,
                "critic_warmup_updates": 0,
                # One process: nothing to split. In bfloat16 ZeRO 1 lays the optimizer's weights in one piece.
                "deepspeed": {
                    "gradient_checkpointing": False,
                    "zero_stage": 0 if setting.dtype == "float32" else 1,
                    "lora_rank": setting.lora_rank,
                },
            },
        }
    )


if __name__ == "__main__":
    main()
