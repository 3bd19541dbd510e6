"""Settings are checked whole, with one line that says what to do."""

from pathlib import Path

import pytest

from limbeck.compiled import Compiled
from limbeck.config import parse_config
from limbeck.errors import ConfigError
from limbeck.run_file import RunFile, arguments, load_run_file

GOOD = """
work_uri: s3://bucket/work
prompts: data.jsonl
teacher: models/teacher
student: models/student
config:
  seed: 1
  teacher: {dtype: float32}
"""


def load(tmp_path: Path, text: str) -> RunFile:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return load_run_file(path)


def test_defaults_are_enough(tmp_path: Path) -> None:
    load(tmp_path, GOOD)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("  seed:", "  sfd: {}\n  seed:"), ["unknown setting `config.sfd`", "Did you mean `sft`?"]),
        (("dtype: float32}", "dtyp: float32}"), ["unknown setting `config.teacher.dtyp`", "`dtype`"]),
        (("prompts:", "promts:"), ["unknown setting `promts`", "Did you mean `prompts`?"]),
        (
            ("s3://bucket/work", "/local/work"),
            ["bad setting `work_uri`", "s3://bucket/path", "'/local/work'"],
        ),
        (
            ("  seed:", "  ppo: {kl_coef: -1}\n  seed:"),
            ["`config.ppo.kl_coef`", "greater than or equal to 0", "-1"],
        ),
        (
            ("  seed:", "  ppo: {batch_size: 10, num_minibatches: 4}\n  seed:"),
            ["multiple of num_minibatches"],
        ),
        (
            ("  seed:", "  sft: {deepspeed: {processes: 3, nodes: 2}}\n  seed:"),
            ["`config.sft`", "the 32 rows of an update must be a multiple of the 6 processes"],
        ),
        (
            ("  seed:", "  reward: {batch_size: 6, deepspeed: {processes: 2}}\n  seed:"),
            ["`config.reward`", "even number of rows"],
        ),
        (
            ("  seed:", "  ppo: {batch_size: 12, num_minibatches: 4, deepspeed: {processes: 2}}\n  seed:"),
            ["`config.ppo`", "the 3 rows of an update must be a multiple of the 2 processes"],
        ),
        (
            ("  seed:", "  ppo: {algorithm: rloo}\n  seed:"),
            ["`config.ppo`", "samples_per_prompt must be at least 2", "rloo compares the answers"],
        ),
        (
            ("  seed:", "  ppo: {algorithm: rloo, samples_per_prompt: 2, deepspeed: {nodes: 2}}\n  seed:"),
            ["`config.ppo`", "processes and nodes must be 1: rloo trains in one"],
        ),
        (
            ("  seed:", "  ppo: {algorithm: grpo, samples_per_prompt: 2, adaptive_kl: true}\n  seed:"),
            ["adaptive_kl must be false", "grpo does not do it"],
        ),
        (
            ("  seed:", "  ppo: {algorithm: rloo, samples_per_prompt: 2, whiten_rewards: true}\n  seed:"),
            ["whiten_rewards must be false"],
        ),
        (
            ("  seed:", "  ppo: {old_logprobs: engine, temperature: 0.7}\n  seed:"),
            ["`config.ppo`", "old_logprobs must be trainer unless"],
        ),
        (
            ("  seed:", "  ppo: {old_logprobs: engine, algorithm: grpo, samples_per_prompt: 2}\n  seed:"),
            ["old_logprobs must be trainer unless", "ppo or rloo"],
        ),
        (("  seed:", "  ppo: {algorithm: dpo}\n  seed:"), ["`config.ppo.algorithm`", "'grpo'", "'dpo'"]),
        (("  seed:", "  task: {answer_pattern: '('}\n  seed:"), ["regular expression"]),
        (("  seed:", "  task: {answer_pattern: abc}\n  seed:"), ["must have a group"]),
        (("  seed:", "  task: {prompt_template: hello}\n  seed:"), ["must contain {prompt}"]),
        (("work_uri", "ppo_rewards: [agreement]\nwork_uri"), ["must hold `model` or `mixed`"]),
        (("work_uri", "work_uri: [1\nwork_uri"), ["not YAML"]),
        ((GOOD, "- 1"), ["not a run file", "a mapping"]),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, change: tuple[str, str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, GOOD.replace(*change))
    message = str(caught.value)
    assert "\n" not in message
    assert "run.yaml" in message
    for word in words:
        assert word in message
    assert caught.value.exit_code == 2


def test_yes_and_no_are_words(tmp_path: Path) -> None:
    text = "config: {judge: {yes: Yes, no: no}, engine: {enforce_eager: yes}}"
    config = load(tmp_path, text).config
    assert (config.judge.yes, config.judge.no, config.engine.enforce_eager) == ("Yes", "no", True)


@pytest.mark.parametrize(
    "text",
    [
        "num_shards: hf_{secret}",
        "work_uri: s3://key:{secret}@host/x",
        "config: {{task: {{answer_pattern: {{api_key: {secret}}}}}}}",
        "prompts: 'x\nteacher: {secret}: y",
    ],
)
def test_a_credential_in_the_wrong_place_is_not_repeated(tmp_path: Path, text: str) -> None:
    secret = "0123456789abcdef" * 3
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text.format(secret=secret))
    assert secret not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such run file in .*nothing.yaml"):
        load_run_file(tmp_path / "nothing.yaml")


def test_whole_numbers_may_arrive_as_floats() -> None:
    assert parse_config({"seed": 3.0, "ppo": {"num_updates": 5.0}}).ppo.num_updates == 5


DECLARED: dict[str, dict[str, object]] = {
    "work_uri": {"parameterType": "STRING"},
    "prompts": {"parameterType": "STRING"},
    "config": {"parameterType": "STRUCT", "defaultValue": {}},
}
SMALL = Compiled(
    spec={"pipelineInfo": {"name": "small"}, "root": {"inputDefinitions": {"parameters": DECLARED}}},
    platform={},
)


def test_a_pipeline_gets_the_parameters_that_it_declares(tmp_path: Path) -> None:
    run_file = load(tmp_path, "prompts: s3://b/p.jsonl\nconfig: {seed: 2}")
    given = arguments(run_file, SMALL)
    assert given.keys() == DECLARED.keys()
    assert (given["prompts"], given["config"]["seed"]) == ("s3://b/p.jsonl", 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("work_uri: s3://b/w", ["missing parameter `prompts`", "pipeline small", "Add it"]),
        ("prompts: p.jsonl\nnum_shards: 4", ["unknown parameter `num_shards`", "another pipeline"]),
    ],
)
def test_parameters_that_do_not_fit_the_pipeline_are_named(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        arguments(load(tmp_path, text), SMALL)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("judge", {"votes": 3}, "votes must be 1 or even"),
        (
            "judge",
            {"votes": 2, "template": "{prompt} {completion}"},
            "template must contain {first} and {second}",
        ),
        ("judge", {"votes": 4}, "temperature must be above 0 for more than 2 votes"),
        (
            "label",
            {"rule": "majority", "calibrate": "majority"},
            "the rule majority does not look at judgements",
        ),
        ("label", {"rule": "gold", "calibrate": "majority"}, "the rule gold does not look at judgements"),
    ],
)
def test_settings_that_would_be_without_effect_are_refused(
    section: str, values: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({section: values})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({}, ["label.rule must be `judge`", "task.kind is `open`", "`judged_majority`"]),
        (
            {"label": {"rule": "majority"}},
            ["label.rule must be `judge`", "task.kind is `open`", "`majority`"],
        ),
        ({"label": {"rule": "gold"}}, ["label.rule must be `judge`"]),
        (
            {"label": {"rule": "judge", "calibrate": "majority"}},
            ["label.calibrate must be `none`", "task.kind is `open`"],
        ),
        (
            {"label": {"rule": "judge"}, "judge": {"template": "{prompt} {completion}"}},
            ["judge.template is not read", "set judge.open_template"],
        ),
        (
            {"label": {"rule": "judge"}, "judge": {"votes": 2, "open_template": "{prompt} {completion}"}},
            ["open_template must contain {first} and {second}"],
        ),
    ],
)
def test_open_answers_are_judged_and_nothing_votes_on_them(
    sections: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"task": {"kind": "open"}, **sections})
    for word in words:
        assert word in str(caught.value)


def test_the_judge_is_asked_by_the_template_of_the_kind_of_task() -> None:
    assert "Is the proposed answer correct?" in parse_config({}).judge_template
    asked = {"task": {"kind": "open"}, "label": {"rule": "judge"}}
    assert "Is the proposed answer good" in parse_config(asked).judge_template
    own = {"open_template": "{completion} to {prompt}?"}
    assert parse_config({**asked, "judge": own}).judge_template == own["open_template"]


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("judge", {"template": "{prompt} {completion}"}),
        ("judge", {"votes": 2}),
        ("judge", {"votes": 4, "temperature": 0.7}),
        ("label", {"rule": "judge", "calibrate": "majority"}),
    ],
)
def test_settings_of_votes_that_fit(section: str, values: dict[str, object]) -> None:
    assert parse_config({section: values})
