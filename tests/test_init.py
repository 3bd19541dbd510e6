"""`limbeck init`: the run file says what the settings' models say, and loads."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from limbeck.cli.work import init
from limbeck.compiled import SHIPPED, find, load
from limbeck.config import Config, parse_config
from limbeck.errors import ConfigError
from limbeck.init_file import FIRST, PLACEHOLDER, run_file_text
from limbeck.inputs import check_inputs
from limbeck.run_file import RunFile, arguments, load_run_file
from limbeck.section import Section

NAMES = sorted(SHIPPED)
COMMENTED = re.compile(r"^( *)#(?=['\w])", re.MULTILINE)
REQUIRED = {
    "ablation": ["work_uri", "prompts", "teacher", "student"],
    "distill": ["work_uri", "prompts", "teacher", "student"],
    "distill_gold": ["work_uri", "prompts", "teacher", "student"],
    "distill_minimal": ["work_uri", "prompts", "teacher", "student"],
    "distill_open": ["work_uri", "prompts", "teacher", "student"],
    "distill_data": ["work_uri", "prompts", "teacher", "student"],
    "distill_rewards": ["work_uri", "prepared_uri", "label_uri", "checkpoint"],
    "evaluate": ["work_uri", "heldout", "models"],
}

OPEN = parse_config({"task": {"kind": "open"}, "label": {"rule": "judge"}})
"""What `distill_open` is made for; others would be refused there."""

app = typer.Typer()
app.command()(init)


def written(pipeline: str, *, full: bool) -> str:
    return run_file_text(pipeline, load(find(pipeline)), full=full)


def loaded(content: str, folder: Path) -> RunFile:
    path = folder / "run.yaml"
    path.write_text(content.replace(PLACEHOLDER, "s3://bucket/filled-in"))
    return load_run_file(path)


def settings(section: Section) -> set[str]:
    """The dotted names of all settings below a section."""
    found = set()
    for name in type(section).model_fields:
        value = getattr(section, name)
        found |= {f"{name}.{inner}" for inner in settings(value)} if isinstance(value, Section) else {name}
    return found


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pipeline", NAMES)
def test_filled_in_it_runs_its_pipeline_with_the_defaults(pipeline: str, full: bool, tmp_path: Path) -> None:
    content = written(pipeline, full=full)
    for changed in (content, COMMENTED.sub(r"\1", content)):
        run_file = loaded(changed, tmp_path)
        given = {name: getattr(run_file, name) for name in REQUIRED[pipeline]}
        made_for: dict[str, Any] = {"config": OPEN} if pipeline == "distill_open" else {}
        assert run_file == RunFile(**given, **made_for)
        assert given.keys() <= arguments(run_file, load(find(pipeline))).keys()


@pytest.mark.parametrize("pipeline", NAMES)
def test_what_must_be_given_comes_first_and_stands_out(pipeline: str, tmp_path: Path) -> None:
    content = written(pipeline, full=False)
    parameters = re.findall(r"^(#?)(\w+):", content, re.MULTILINE)
    assert [name for hidden, name in parameters if not hidden and name != "config"] == REQUIRED[pipeline]
    assert [name for _, name in parameters][: len(REQUIRED[pipeline])] == REQUIRED[pipeline]
    assert (
        content.count(f": {PLACEHOLDER}") + content.count(f": [{PLACEHOLDER}]") == len(REQUIRED[pipeline]) - 1
    )


def test_a_placeholder_that_was_left_is_named_by_a_run(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(written("distill", full=False))
    with pytest.raises(ConfigError, match=f"`prompts`.*{PLACEHOLDER}"):
        check_inputs(load_run_file(path))


def test_full_holds_every_parameter_and_every_setting() -> None:
    content = yaml.safe_load(COMMENTED.sub(r"\1", written("distill", full=True)))
    declared = load(find("distill")).parameters
    assert content.keys() == declared.keys()
    names = settings(Config())
    assert {name for name in names if not holds(content["config"], name)} == set()


def holds(values: dict[str, Any], name: str) -> bool:
    head, _, rest = name.partition(".")
    return head in values and (not rest or holds(values[head], rest))


def test_a_pipeline_is_not_asked_about_stages_that_it_does_not_run() -> None:
    content = yaml.safe_load(written("evaluate", full=True))
    assert {"task", "engine", "evaluate", "report"} <= content["config"].keys()
    assert not {"generate", "judge", "label", "sft", "reward", "ppo"} & content["config"].keys()


def test_the_stages_of_a_pipeline_are_those_that_its_first_task_is_told() -> None:
    compiled = load(find("distill"))
    told = compiled.preflight["inputs"]["parameters"]["stages"]
    told["runtimeValue"]["constant"] = ["generate", "label"]
    content = yaml.safe_load(run_file_text("distill", compiled, full=True))
    assert {"engine", "generate", "label"} <= content["config"].keys()
    assert not {"judge", "sft", "reward", "ppo", "evaluate", "report"} & content["config"].keys()


@pytest.mark.parametrize("full", [False, True])
def test_every_line_can_be_changed_alone(full: bool, tmp_path: Path) -> None:
    content = written("distill", full=full)
    lines = content.split("\n")
    hidden = [number for number, line in enumerate(lines) if COMMENTED.match(line)]
    assert len(hidden) > (60 if full else 8)
    expected = loaded(content, tmp_path)
    for number in hidden:
        one = [COMMENTED.sub(r"\1", line) if n == number else line for n, line in enumerate(lines)]
        assert loaded("\n".join(one), tmp_path) == expected, lines[number]


def test_settings_to_change_first_are_settings() -> None:
    assert set(FIRST) <= settings(Config())


def test_help_is_that_of_the_models_with_the_choices_and_no_line_is_long() -> None:
    content = written("distill", full=True)
    help_text = " ".join(re.findall(r"^ *# (.*)$", content, re.MULTILINE))
    for section in (Config(), Config().ppo, Config().sft.deepspeed, Config().judge):
        for field in type(section).model_fields.values():
            assert field.description
            assert " ".join(field.description.split()) in re.sub(r" +", " ", help_text)
    assert "Choices: judged_majority, majority, judge, gold." in help_text
    assert "cpu: CPUs, a Kubernetes quantity" in help_text
    assert max(len(line) for line in content.split("\n") if line.lstrip().startswith("# ")) <= 100


def test_it_is_written_once_and_never_over_another_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    first = CliRunner().invoke(app, [str(path)])
    assert (first.exit_code, first.output) == (
        0,
        f"limbeck: wrote {path}; replace every {PLACEHOLDER} in it\n",
    )
    assert path.read_text() == written("distill", full=False)
    second = CliRunner().invoke(app, [str(path), "--full"])
    assert second.exit_code == 2
    assert second.stderr.startswith(f"limbeck: error 2: the file is there already in {path}")
    assert path.read_text() == written("distill", full=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-folder/run.yaml"], "cannot write the file in no-folder/run.yaml"),
        (["-", "--pipeline", "none"], "no such pipeline in none"),
        (
            ["-", "--pipeline", "tests/small_pipeline.yaml"],
            "not a pipeline for run files in tests/small_pipeline",
        ),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"limbeck: error 2: {message}")
    assert result.stderr.count("\n") == 1


def test_a_dash_writes_to_the_terminal() -> None:
    result = CliRunner().invoke(app, ["-", "--pipeline", "evaluate", "--full"])
    assert result.stdout == written("evaluate", full=True)
