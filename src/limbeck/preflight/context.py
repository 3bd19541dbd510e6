"""Checks of lengths: completions fit the context, the context fits the model."""

from collections.abc import Iterator
from typing import Any

from limbeck.config import Config
from limbeck.errors import ConfigError
from limbeck.preflight.asked import Asked
from limbeck.preflight.findings import Finding, warning
from limbeck.preflight.models import ModelFacts

# Kinds of RoPE that leave max_position_embeddings as it is.
SCALED_ALREADY = ("default", "su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling")


def check_lengths(asked: Asked, config: Config) -> list[Finding]:
    """A completion leaves room for its prompt in `engine.max_model_len`."""
    room = config.engine.max_model_len
    return [
        Finding(
            ConfigError(
                "completions leave no room for a prompt",
                where=f"config.{name}",
                expected=f"less than config.engine.max_model_len, {room}",
                got=str(tokens),
                remedy="Lower it, or raise engine.max_model_len",
            )
        )
        for name, tokens in _completion_lengths(asked, config)
        if tokens >= room
    ]


def _completion_lengths(asked: Asked, config: Config) -> Iterator[tuple[str, int]]:
    """The longest completions that the stages of this run sample."""
    if asked.runs("judge"):
        yield "generate.teacher.max_tokens", config.generate.teacher.max_tokens
    if asked.runs("generate") and asked.runs("reward"):
        yield "generate.student.max_tokens", config.generate.student.max_tokens
    if asked.runs("ppo"):
        yield "ppo.max_tokens", config.ppo.max_tokens
    if asked.runs("evaluate"):
        yield "evaluate.max_tokens", config.evaluate.max_tokens


def check_context(facts: ModelFacts, config: Config) -> list[Finding]:
    """The engine's context is no longer than what the model was made for: vLLM refuses to start otherwise."""
    longest = context_length(facts)
    if longest is None or config.engine.max_model_len <= longest:
        return []
    error = ConfigError(
        "the engine's context is longer than the model's",
        where=f"config.engine.max_model_len for {facts.place.path}",
        expected=f"at most {longest}",
        got=str(config.engine.max_model_len),
        remedy=f"Set engine.max_model_len: {longest}, or take a model with a longer context",
    )
    return [Finding(error)]


def check_row_lengths(facts: ModelFacts, asked: Asked, config: Config) -> list[Finding]:
    """Rows of a training are no longer than what the model was made for."""
    longest = context_length(facts)
    lengths = {"sft": config.sft.max_length, "reward": config.reward.max_length}
    return [
        warning(
            ConfigError(
                "training rows may be longer than the model's context",
                where=f"config.{stage}.max_length for {facts.place.path}",
                expected=f"at most {longest}",
                got=str(length),
                remedy="Lower it: longer rows are cut",
            )
        )
        for stage, length in lengths.items()
        if asked.runs(stage) and longest is not None and length > longest
    ]


def context_length(facts: ModelFacts) -> int | None:
    """The longest context of a model in tokens, or None when nothing says it, or it has no end.

    Source: vLLM 0.32, config/model.py, `_get_and_verify_max_len`.
    """
    a = facts.architecture
    limits = [a.max_position_embeddings, a.n_positions, facts.tokenizer_config.get("model_max_length")]
    known = [limit for limit in limits if isinstance(limit, int | float) and limit > 0]
    if not known:
        return None
    try:
        return int(min(known) * _rope_factor(a.rope_parameters or a.rope_scaling or {}))
    except OverflowError:  # JSON may say Infinity
        return None


def _rope_factor(rope: dict[str, Any]) -> float:
    """By how much RoPE stretches max_position_embeddings; kinds of layers may each have their own entry."""
    kinds = (
        [rope] if {"rope_type", "type"} & rope.keys() else [v for v in rope.values() if isinstance(v, dict)]
    )
    factors = [
        kind.get("factor") for kind in kinds if kind.get("rope_type", kind.get("type")) not in SCALED_ALREADY
    ]
    known = [factor for factor in factors if isinstance(factor, int | float) and factor > 0]
    return float(known[-1]) if known else 1.0
