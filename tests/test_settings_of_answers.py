"""How answers are read decides the results of the stages that read or compare them, and of no other."""

from typing import Any

import pytest

from limbeck import settings
from limbeck.config import Config, parse_config


def hashes(task: dict[str, Any]) -> dict[str, str]:
    config: Config = parse_config({"task": task})
    return {
        "prepare": settings.of_prepare(config),
        "generate": settings.of_generate(config, "teacher", 0, 1),
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
