"""Settings are checked whole, with one line that says what to do."""

from pathlib import Path

import pytest

from limbeck.config import load_run_file, parse_config, parse_reward
from limbeck.errors import ConfigError

GOOD = """
work_uri: s3://bucket/work
config:
  data: {prompts: data.jsonl}
  teacher: {path: teacher}
  student: {path: student}
"""


def load(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    load_run_file(path)


def test_defaults_are_enough(tmp_path: Path) -> None:
    load(tmp_path, GOOD)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("  data:", "  sfd: {}\n  data:"), ["unknown setting `config.sfd`", "Did you mean `sft`?"]),
        (("teacher}", "teacher, dtyp: float32}"), ["unknown setting `config.teacher.dtyp`", "`dtype`"]),
        (("  student: {path: student}", ""), ["missing setting `config.student`", "Add it"]),
        (
            ("s3://bucket/work", "/local/work"),
            ["bad setting `work_uri`", "s3://bucket/path", "'/local/work'"],
        ),
        (
            ("  data:", "  ppo: {kl_coef: -1}\n  data:"),
            ["`config.ppo.kl_coef`", "greater than or equal to 0", "-1"],
        ),
        (
            ("  data:", "  ppo: {batch_size: 10, num_minibatches: 4}\n  data:"),
            ["multiple of num_minibatches"],
        ),
        (("  data:", "  task: {answer_pattern: '('}\n  data:"), ["regular expression"]),
        (("  data:", "  task: {answer_pattern: abc}\n  data:"), ["must have a group"]),
        (("  data:", "  task: {prompt_template: hello}\n  data:"), ["must contain {prompt}"]),
        (("work_uri", "ppo_rewards: [agreement]\nwork_uri"), ["must hold `model` or `mixed`"]),
        (("work_uri", "work_uri: [1\nwork_uri"), ["not YAML"]),
        ((GOOD, "- 1"), ["not a mapping"]),
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


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such run file in .*nothing.yaml"):
        load_run_file(tmp_path / "nothing.yaml")


def test_whole_numbers_may_arrive_as_floats() -> None:
    base = {"data": {"prompts": "x"}, "teacher": {"path": "a"}, "student": {"path": "b"}}
    assert parse_config({**base, "seed": 3.0, "ppo": {"num_updates": 5.0}}).ppo.num_updates == 5


def test_an_unknown_reward_is_named() -> None:
    assert parse_reward("mixed") == "mixed"
    with pytest.raises(ConfigError, match="'gold'"):
        parse_reward("gold")
