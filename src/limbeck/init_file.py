"""What `limbeck init` writes: a run file in which every setting has its help and its default.

All of it is read from the models that check a run file, so it cannot say anything else than they do.
Lines of help begin with `# `; a setting that is commented out begins with `#` and its name.
"""

import textwrap
from collections.abc import Collection, Iterator
from typing import Any, Literal, get_args, get_origin

import yaml

from limbeck.compiled import Compiled
from limbeck.config import Config, LabelConfig, TaskConfig
from limbeck.errors import ConfigError
from limbeck.resources import Resources
from limbeck.run_file import RunFile
from limbeck.section import Section

PLACEHOLDER = "CHANGE-ME"
WIDTH = 100
FIRST = (
    "seed",
    "teacher.dtype",
    "student.dtype",
    "task.prompt_template",
    "task.kind",
    "task.answer_pattern",
    "engine.max_model_len",
    "engine.gpu_memory_utilization",
    "engine.kv_cache_mib",
    "engine.enforce_eager",
    "engine.tensor_parallel_size",
    "engine.data_parallel_size",
    "generate.teacher.samples_per_prompt",
    "generate.teacher.temperatures",
    "generate.teacher.max_tokens",
    "generate.student.samples_per_prompt",
    "generate.student.temperatures",
    "generate.student.max_tokens",
    "label.rule",
    "label.min_vote_share",
    "label.validation_prompts",
    "sft.learning_rate",
    "sft.num_epochs",
    "sft.batch_size",
    "sft.micro_batch_size",
    "reward.init",
    "reward.num_epochs",
    "ppo.num_updates",
    "ppo.batch_size",
    "ppo.max_tokens",
    "ppo.learning_rate",
    "ppo.kl_coef",
    "evaluate.samples_per_prompt",
    "evaluate.max_tokens",
)
"""The settings that people change first; they are not commented out."""


def run_file_text(pipeline: str, compiled: Compiled, *, full: bool) -> str:
    """A run file for a pipeline.

    Args:
        pipeline: Its name, or the compiled file, as for `limbeck run --pipeline`.
        compiled: The pipeline; it says which parameters there are and which are required.
        full: Whether to write every setting, and not only those that people change first.

    Raises:
        ConfigError: when it has parameters that no run file holds.
    """
    declared = compiled.parameters
    foreign = sorted(set(declared) - set(RunFile.model_fields))
    if foreign:
        raise ConfigError(
            "not a pipeline for run files",
            where=pipeline,
            expected=f"parameters among {', '.join(RunFile.model_fields)}",
            got=", ".join(foreign),
            remedy="Give its parameters to `limbeck submit` or `kfp run create`",
        )
    names = [name for name in RunFile.model_fields if name in declared]
    required = [name for name in names if name in compiled.required]
    lines = _head(pipeline, full=full)
    for name in required:
        lines += [*_help(RunFile, name, ""), f"{name}: {_required_value(name)}", ""]
    for name in names:
        if name not in required and name != "config":
            lines += [*_setting(RunFile(), name, "", live=False, full=full), ""]
    if "config" in declared:
        lines += [*_help(RunFile, "config", ""), "config:"]
        lines += _section(_config(compiled), "", "  ", compiled.stages, full=full)
    return "\n".join(lines).rstrip() + "\n"


def _config(compiled: Compiled) -> Config:
    """The defaults, but for what a pipeline is made for."""
    if not compiled.open_ended:
        return Config()
    return Config(task=TaskConfig(kind="open"), label=LabelConfig(rule="judge"))


def _head(pipeline: str, *, full: bool) -> list[str]:
    option = "" if pipeline == "distill" else f" --pipeline {pipeline}"
    return [
        f"# A run of the pipeline {pipeline}, on this machine: limbeck run FILE{option}",
        f"# Replace every {PLACEHOLDER} first.",
        "# A line such as `#name: value` shows a default: to set another value, take its # away.",
        *([] if full else [f"# There are more settings: limbeck init --full{option}"]),
        "",
    ]


def _required_value(name: str) -> str:
    """The default of a run file where it has one, else a placeholder."""
    default = getattr(RunFile(), name)
    return _yaml(default) if default else _yaml([PLACEHOLDER] if isinstance(default, tuple) else PLACEHOLDER)


def _section(
    section: Section, path: str, indent: str, stages: Collection[str], *, full: bool
) -> Iterator[str]:
    """The settings of a section and the sections in it.

    A section has one line at least that is not commented out: YAML would read its name alone as null.
    """
    names = [name for name in type(section).model_fields if full or _is_first(f"{path}{name}")]
    if not path:
        names = [name for name in names if name in stages or name not in Resources.model_fields]
    live = {name for name in names if f"{path}{name}" in FIRST} or set(names[:1])
    for number, name in enumerate(names):
        value = getattr(section, name)
        if number and isinstance(value, Section):
            yield ""
        if isinstance(value, Section) and not _is_unset(value):
            yield from _help(type(section), name, indent)
            yield f"{indent}{name}:"
            yield from _section(value, f"{path}{name}.", f"{indent}  ", stages, full=full)
        else:
            yield from _setting(section, name, indent, live=name in live, full=full)


def _is_first(path: str) -> bool:
    """Whether people change this setting, or one in this section, first."""
    return any(first == path or first.startswith(f"{path}.") for first in FIRST)


def _setting(section: Section, name: str, indent: str, *, live: bool, full: bool) -> Iterator[str]:
    """One setting with its help; a section of which nothing is set by default is one too."""
    value = getattr(section, name)
    yield from _help(type(section), name, indent)
    if isinstance(value, Section):
        yield from _outline(value, f"{indent}# ") if full else []
        yield f"{indent}#{name}: {{}}"
    else:
        yield f"{indent}{'' if live else '#'}{_yaml(name)}: {_yaml(value)}"  # YAML reads a bare `yes` as true


def _outline(section: Section, indent: str) -> Iterator[str]:
    """What may be said in a section, as help; sections of one kind are explained once."""
    explained = set()
    for name in type(section).model_fields:
        value = getattr(section, name)
        yield from _wrapped(f"{name}: {_description(type(section), name)}", f"{indent}  ")
        if isinstance(value, Section) and type(value) not in explained:
            explained.add(type(value))
            yield from _outline(value, f"{indent}  ")


def _is_unset(section: Section) -> bool:
    """Whether nothing in a section has a default."""
    values = [getattr(section, name) for name in type(section).model_fields]
    return all(_is_unset(value) if isinstance(value, Section) else value is None for value in values)


def _help(model: type[Section], name: str, indent: str) -> list[str]:
    """A setting's help as comments."""
    return _wrapped(_description(model, name), f"{indent}# ")


def _wrapped(line: str, indent: str) -> list[str]:
    return textwrap.wrap(
        line,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _description(model: type[Section], name: str) -> str:
    """The line under a field, and which values it takes if they are few."""
    field = model.model_fields[name]
    choices = _choices(field.annotation)
    listed = f" Choices: {', '.join(map(str, choices))}." if choices else ""
    return f"{field.description}{listed}"


def _choices(annotation: Any) -> tuple[Any, ...]:
    """The values of the first Literal in a type; none if there is none."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return next((found for part in get_args(annotation) if (found := _choices(part))), ())


def _yaml(value: object) -> str:
    """A value as YAML on one line."""
    value = list(value) if isinstance(value, tuple) else value
    style = '"' if isinstance(value, str) and "\n" in value else None
    text: str = yaml.safe_dump(
        value, default_flow_style=True, default_style=style, width=float("inf"), allow_unicode=True
    )
    return text.removesuffix("\n").removesuffix("\n...")
