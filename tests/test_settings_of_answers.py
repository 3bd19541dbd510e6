"""How answers are read decides the results of the stages that read or compare them, and of no other."""

from typing import Any

import pytest

from limbeck import settings
from limbeck.config import Config, parse_config


def hashes(task: dict[str, Any]) -> dict[str, str]:
    config: Config = parse_config({"task": task})
    return {
        "prepare": settings.of_prepare(config),
        "generate": settings.of_generate(config, "teacher"),
        "label": settings.of_label(config),
        "sft": settings.of_sft(config, "all"),
        "reward": settings.of_reward(config),
        "ppo": settings.of_ppo(config, "model"),
        "evaluate": settings.of_evaluate(config, "teacher"),
    }


@pytest.mark.parametrize(
    ("task", "changed"),
    [
        ({"kind": "math"}, {"prepare", "generate", "label", "ppo", "evaluate"}),
        ({"compare_seconds": 3.0}, {"label", "ppo", "evaluate"}),
        ({"answer_pattern": "(x)"}, {"generate", "label", "ppo", "evaluate"}),
    ],
    ids=lambda value: " ".join(sorted(value)) if isinstance(value, set) else str(value),
)
def test_a_setting_of_answers_changes_the_keys_of_these_stages(
    task: dict[str, Any], changed: set[str]
) -> None:
    before, after = hashes({}), hashes(task)
    assert {stage for stage in before if before[stage] != after[stage]} == changed


def hashes_of_judge(kind: str, **judge: str) -> dict[str, str]:
    opened = {"task": {"kind": "open"}, "label": {"rule": "judge"}} if kind == "open" else {}
    config: Config = parse_config(opened | {"judge": judge})
    return {
        "judge": settings.of_judge(config),
        "ppo judge": settings.of_ppo(config, "judge"),
        "ppo model": settings.of_ppo(config, "model"),
        "answers": settings.of_judged_answers(config),
    }


@pytest.mark.parametrize(
    ("kind", "name", "is_read"),
    [("pattern", "template", True), ("pattern", "open_template", False), ("open", "open_template", True)],
)
def test_the_template_that_is_read_changes_the_keys_of_what_is_judged(
    kind: str, name: str, is_read: bool
) -> None:
    before, after = hashes_of_judge(kind), hashes_of_judge(kind, **{name: "{prompt} {completion}?"})
    changed = {stage for stage in before if before[stage] != after[stage]}
    assert changed == ({"judge", "ppo judge", "answers"} if is_read else set())
