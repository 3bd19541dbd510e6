"""Which settings decide a stage's result: what `config_hash` in its manifest, and so its key, is a hash of.

A setting that is left out here (how often a training state is saved, how fast the engine is) may be
changed between two attempts: the second goes on where the first one ended.
"""

from typing import Any

from limbeck.config import Config, PpoReward
from limbeck.manifest import digest

NOT_DECISIVE: dict[str, Any] = {"deepspeed": {"checkpoint_seconds", "keep_states"}}
"""Of a training's settings."""


def of_prepare(config: Config) -> str:
    """Of `prepare`."""
    choices = [config.task.kind, config.task.shuffle_options]
    return digest([config.seed, config.prepare.model_dump(), choices])


def of_black_box(config: Config, name: str) -> str:
    """Of a model that a server runs: what stands for its weights."""
    server = config.openai
    return digest([server.base_url, name, server.revision, server.send_seeds, server.top_logprobs])


def of_generate(config: Config, role: str, shard: int, num_shards: int) -> str:
    """Of one shard of `generate`, by teacher or student."""
    sampling = config.generate.teacher if role == "teacher" else config.generate.student
    return digest(
        [
            config.seed,
            config.task.model_dump(exclude={"compare_seconds"}),  # nothing is compared here
            config.engine.max_model_len,
            sampling.model_dump(),
            config.generate.rows_per_part,
            role,
            shard,
            num_shards,
        ]
    )


def of_judge(config: Config) -> str:
    """Of `judge`."""
    return digest([config.judge.model_dump(), config.engine.max_model_len, config.generate.rows_per_part])


def of_label(config: Config) -> str:
    """Of `label`."""
    return digest([config.seed, config.task.model_dump(), config.label.model_dump()])


def of_sft(config: Config, selection: str) -> str:
    """Of `sft`, by the selection of completions."""
    return digest(
        [
            config.seed,
            selection,
            config.task.prompt_template,
            config.student.dtype,
            config.sft.model_dump(exclude=NOT_DECISIVE),
        ]
    )


def of_reward(config: Config) -> str:
    """Of `reward`; what its gate asks for decides nothing but whether the run goes on."""
    return digest(
        [
            config.seed,
            config.task.prompt_template,
            config.teacher.dtype,
            config.student.dtype,
            config.reward.model_dump(exclude=NOT_DECISIVE | {"min_auc": True}),
        ]
    )


def of_ppo(config: Config, reward: PpoReward) -> str:
    """Of `ppo`, by the kind of reward."""
    return digest(
        [
            config.seed,
            reward,
            config.task.model_dump(),
            config.student.dtype,
            config.reward.max_length,
            config.engine.max_model_len,
            config.ppo.model_dump(exclude=NOT_DECISIVE),
        ]
    )


def of_evaluate(config: Config, name: str) -> str:
    """Of `evaluate`, by the model's name."""
    return digest(
        [
            config.seed,
            config.task.model_dump(),
            config.engine.max_model_len,
            config.evaluate.model_dump(),
            name,
        ]
    )


def of_report(config: Config) -> str:
    """Of `report`, which shows them all."""
    return digest(config.model_dump(mode="json"))
