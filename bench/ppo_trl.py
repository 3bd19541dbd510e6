"""The other side of `bench.ppo`: TRL's PPOTrainer (of 1.12.0) or RLOOTrainer, one update a turn.

python bench/ppo_trl.py FOLDER SETTING ALGORITHM --figures N     run by bench.ppo, with either environment

Each samples with transformers' own `generate`, as it does by default. Nothing of Limbeck is imported.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import datasets
import peft
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)

from bench.ppo_settings import WANTED, Setting, questions
from bench.turns import Turns, peak

UPDATES = 10_000
"""More than are ever asked for."""


class Hook(TrainerCallback):  # type: ignore[misc]
    """Takes a turn after each round of rollouts and its updates."""

    def __init__(self, turns: Turns, steps: int) -> None:
        """`steps`: how often the trainer says `on_step_end` in a round."""
        self._turns, self._steps = turns, steps
        self._reward = 0.0

    def on_train_begin(self, *_: object, **__: object) -> None:
        """The models are loaded."""
        self._turns.end()

    def on_log(self, args: object, state: object, control: object, logs: Any = None, **_: object) -> None:
        """Note the mean reward of the round."""
        self._reward = (logs or {}).get("objective/scores", self._reward)

    def on_step_end(self, args: object, state: Any, control: object, **_: object) -> None:
        """A round ends with the last of its updates; PPOTrainer tells of rounds alone."""
        if state.global_step % self._steps == 0:
            self._turns.end(reward=float(self._reward), peak=peak())


class Rule(torch.nn.Module):
    """A reward that is a rule, in the shape of a reward model: 1 from the wanted token on."""

    base_model_prefix = "has"

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self.wanted, self.score = wanted, torch.nn.Identity()

    def has(self, input_ids: torch.Tensor, **_: object) -> Any:
        """What a backbone gives, of which the last hidden state is read."""
        seen_B_S_1 = ((input_ids == self.wanted).cumsum(1) > 0).float().unsqueeze(-1)
        return argparse.Namespace(hidden_states=[seen_B_S_1])


def main() -> None:
    """Train until the parent has enough."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("setting")
    parser.add_argument("algorithm")
    parser.add_argument("--figures", type=int, required=True)
    asked = parser.parse_args()
    setting = Setting(**json.loads(asked.setting))
    train = train_ppo if asked.algorithm == "ppo" else train_rloo
    train(setting, asked.folder, Turns(asked.figures))


def train_ppo(setting: Setting, folder: Path, turns: Turns) -> None:
    """PPOTrainer with four models; without a stop token it samples to the last token."""
    from trl.experimental.ppo import PPOConfig, PPOTrainer  # noqa: PLC0415 - the other environment alone has it

    tokenizer = AutoTokenizer.from_pretrained(folder / "student")
    reward: Any = _scorer(folder)
    reward.score = torch.nn.Sequential(reward.score, torch.nn.Sigmoid())
    value = _scorer(folder)
    torch.nn.init.zeros_(value.score.weight)
    adapters = {}
    if setting.lora_rank:
        # In place: the trainer looks for the backbone where a model without adapters has it.
        value = peft.inject_adapter_in_model(_adapters(setting, "SEQ_CLS"), value)
        value.score.requires_grad_(True)
        adapters = {"peft_config": _adapters(setting, "CAUSAL_LM")}
    prompts = _prompts(setting, tokenizer)
    ids = datasets.Dataset.from_list(
        [{"input_ids": tokenizer(text, add_special_tokens=False)["input_ids"]} for text in prompts]
    )
    trainer = PPOTrainer(
        args=PPOConfig(
            # With accumulation it would step once a pass, whatever `num_mini_batches` is.
            per_device_train_batch_size=setting.batch,
            gradient_accumulation_steps=1,
            num_mini_batches=setting.minibatches,
            num_ppo_epochs=setting.epochs,
            local_rollout_forward_batch_size=setting.forward_rows,
            total_episodes=UPDATES * setting.batch,
            response_length=setting.completion_tokens,
            temperature=1.0,
            kl_coef=setting.kl_coef,
            vf_coef=0.5,
            num_sample_generations=0,
            stop_token="eos" if setting.mean_tokens else None,
            lr_scheduler_type="constant",
            **_alike(setting),
        ),
        processing_class=tokenizer,
        model=_policy(folder),
        ref_model=None if adapters else _policy(folder),
        reward_model=Rule(tokenizer.convert_tokens_to_ids(WANTED)) if setting.rule else reward,
        value_model=value,
        train_dataset=ids,
        eval_dataset=ids,
        callbacks=[Hook(turns, 1)],
        **adapters,
    )
    trainer.train()


def train_rloo(setting: Setting, folder: Path, turns: Turns) -> None:
    """RLOOTrainer with policy, reference and reward model."""
    from trl import RLOOConfig, RLOOTrainer  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(folder / "student")
    trainer = RLOOTrainer(
        args=RLOOConfig(
            per_device_train_batch_size=setting.rows,
            generation_batch_size=setting.batch,
            num_generations=setting.group,
            num_iterations=setting.epochs,
            max_steps=UPDATES,
            max_completion_length=setting.completion_tokens,
            temperature=1.0,
            epsilon=0.2,
            beta=setting.kl_coef,
            max_grad_norm=1.0,
            **_alike(setting),
        ),
        processing_class=tokenizer,
        model=_policy(folder),
        reward_funcs=_scorer(folder),
        reward_processing_classes=tokenizer,
        train_dataset=datasets.Dataset.from_list([{"prompt": text} for text in _prompts(setting, tokenizer)]),
        callbacks=[Hook(turns, setting.minibatches * setting.epochs)],
    )
    trainer.train()


def _alike(setting: Setting) -> dict[str, Any]:
    """Of both trainers."""
    return {
        "output_dir": "/tmp/unused",  # noqa: S108 - nothing is written
        "learning_rate": setting.learning_rate,
        "gradient_checkpointing": False,
        "bf16": setting.dtype == "bfloat16",
        "use_cpu": not torch.cuda.is_available(),
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "seed": 1,
    }


def _prompts(setting: Setting, tokenizer: Any) -> list[str]:
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        for question in questions(setting)
    ]


def _adapters(setting: Setting, task: str) -> Any:
    return peft.LoraConfig(task_type=task, r=setting.lora_rank, target_modules="all-linear")


def _policy(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder / "student", dtype=torch.float32)


def _scorer(folder: Path) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(
        folder / "reward", num_labels=1, dtype=torch.float32
    )


if __name__ == "__main__":
    main()
