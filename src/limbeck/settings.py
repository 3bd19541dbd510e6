"""Which settings decide a stage's result: what `config_hash` in its manifest, and so its key, is a hash of.

A setting that is left out here (how often a training state is saved, how fast the engine is) may be
changed between two attempts: the second goes on where the first one ended.
"""

from typing import Any

from limbeck.config import Config, Dtype, PpoReward
from limbeck.manifest import digest

NOT_DECISIVE: dict[str, Any] = {"deepspeed": {"checkpoint_seconds", "keep_states", "nodes", "processes"}}
"""Of a training's settings."""


def of_prepare(config: Config) -> str:
    """Of `prepare`; where data sets of a hub are fetched from decides nothing, their commit is an input."""
    choices = [config.task.kind, config.task.shuffle_options]
    read = config.prepare.model_dump(exclude={"hub_endpoint", "hub_offline"})
    return digest([config.seed, read, choices])


def of_engine(weights: str, dtype: Dtype, thinking: bool | None) -> str:
    """Of a model that is loaded and sampled from, by the hash of its weights.

    What it is told about thinking counts where it is told anything.
    """
    return digest([weights, dtype] if thinking is None else [weights, dtype, thinking])


def of_black_box(config: Config, name: str) -> str:
    """Of a model that a server runs: what stands for its weights; messages are in the hash of a stage."""
    server, thinking = config.openai, config.teacher.enable_thinking
    return digest([server.base_url, name, server.revision, server.send_seeds, server.top_logprobs, thinking])


def of_generate(config: Config, role: str) -> str:
    """Of `generate`, by teacher or student; how many tasks share the prompts decides nothing."""
    sampling = config.generate.teacher if role == "teacher" else config.generate.student
    return digest(
        [
            config.seed,
            config.task.model_dump(exclude={"compare_seconds"}),  # nothing is compared here
            config.engine.max_model_len,
            sampling.model_dump(),
            config.generate.rows_per_part,
            role,
        ]
    )


def of_judge(config: Config) -> str:
    """Of `judge`."""
    return digest(
        [
            _judge(config),
            config.task.strip_thinking,
            config.engine.max_model_len,
            config.generate.rows_per_part,
        ]
    )


def of_label(config: Config, variant: str = "") -> str:
    """Of `label`."""
    given = [config.seed, config.task.model_dump(), config.label.model_dump(exclude={"noise"})]
    return _digest(given, variant)


def of_noise(config: Config, variant: str) -> str:
    """Of `noise`, which makes some labels wrong."""
    return _digest([config.seed, config.task.model_dump(), config.label.noise], variant)


def of_sft(config: Config, selection: str, role: str = "student", variant: str = "") -> str:
    """Of `sft`, by the selection of completions and by whose weights are tuned."""
    return _digest(
        [
            config.seed,
            selection,
            config.task.prompt_template,
            config.chat(role),
            config.model(role).dtype,
            config.sft.model_dump(exclude=NOT_DECISIVE),
            *([role] if role != "student" else []),
        ],
        variant,
    )


def of_reward(config: Config, variant: str = "") -> str:
    """Of `reward`; what its gate asks for decides nothing but whether the run goes on."""
    return _digest(
        [
            config.seed,
            config.task.prompt_template,
            config.chat(config.reward.init),
            config.teacher.dtype,
            config.student.dtype,
            config.reward.model_dump(exclude=NOT_DECISIVE | {"min_auc": True, "packing": True}),
            *(["packing"] if config.reward.packing else []),
        ],
        variant,
    )


def of_ppo(config: Config, reward: PpoReward, variant: str = "") -> str:
    """Of `ppo`, by the kind of reward; how the teacher judges counts where it is the reward."""
    return _digest(
        [
            config.seed,
            reward,
            config.task.model_dump(),
            config.chat("student"),
            config.student.dtype,
            config.chat(config.reward.init),
            config.reward.max_length,
            config.engine.max_model_len,
            config.ppo.model_dump(exclude=NOT_DECISIVE | {"judge_gpu_memory_utilization": True}),
            *([_judge(config)] if reward == "judge" else []),
        ],
        variant,
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


def of_judged_answers(config: Config) -> str:
    """Of the judgement of the answers of `evaluate` to open questions."""
    return digest(
        [
            _judge(config),
            config.label.min_p_correct,
            config.task.model_dump(),
            config.engine.max_model_len,
        ]
    )


def of_report(config: Config) -> str:
    """Of `report`, which shows them all."""
    return digest(config.model_dump(mode="json"))


def _digest(values: list[Any], variant: str) -> str:
    """A hash of what decides; a variant decides too, as what is made under it bears its name."""
    return digest([*values, variant] if variant else values)


def _judge(config: Config) -> dict[str, Any]:
    """How the judge is asked, with the one template that this kind of task reads."""
    template = {"template": config.judge_template}
    return config.judge.model_dump(exclude={"template", "open_template"}) | template
