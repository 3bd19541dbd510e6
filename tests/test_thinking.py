"""What models think is taken out of completions where a run asks for it."""

import pytest

from limbeck import settings
from limbeck.answers import extract_answer
from limbeck.config import TaskConfig, parse_config
from limbeck.thinking import without_thinking


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("It is 4", "It is 4"),
        ("<think>\n2 + 2\n</think>\n\nIt is 4", "It is 4"),
        ("<think>\n\n</think>\n\nIt is 4", "It is 4"),
        ("the prompt had opened it\n</think>\nIt is 4", "It is 4"),
        ("<think>one</think> and <think>two</think> It is 4", "It is 4"),
        ("<think>2 + 2 is = 5, no", ""),
        ("It is 4 <think>or is it", "It is 4"),
        ("", ""),
    ],
)
def test_what_is_left_is_what_comes_after_the_last_thought(text: str, answer: str) -> None:
    assert without_thinking(text) == answer


@pytest.mark.parametrize(("strip_thinking", "answer"), [(False, "5"), (True, None)])
def test_a_thought_that_was_cut_off_gives_no_answer_where_thinking_is_stripped(
    strip_thinking: bool, answer: str | None
) -> None:
    assert extract_answer("<think>2 + 2 = 5", TaskConfig(strip_thinking=strip_thinking)) == answer


ROLES = ("teacher", "student")


def hashes(**sections: object) -> dict[str, str]:
    config = parse_config(dict(sections))
    return {
        "prepare": settings.of_prepare(config),
        "generate": settings.of_generate(config, "teacher"),
        "judge": settings.of_judge(config),
        "label": settings.of_label(config),
        "sft": settings.of_sft(config, "all"),
        "reward": settings.of_reward(config),
        "ppo": settings.of_ppo(config, "model"),
        "evaluate": settings.of_evaluate(config, "student"),
    }


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        (
            {},
            {"task": {"strip_thinking": True}},
            {"generate", "judge", "label", "sft", "reward", "ppo", "evaluate"},
        ),
        (
            {},
            {"task": {"system_prompt": "Be brief."}},
            {"generate", "label", "sft", "reward", "ppo", "evaluate"},
        ),
        # Of the stages that sample alone, the model's own hash holds it: see tests/tasks.
        ({}, {"student": {"enable_thinking": False}}, {"sft", "reward", "ppo"}),
        ({}, {"teacher": {"enable_thinking": False}}, set()),
        (
            {"reward": {"init": "teacher"}},
            {"reward": {"init": "teacher"}, "teacher": {"enable_thinking": False}},
            {"reward", "ppo"},
        ),
        ({}, {"sft": {"packing": True}}, {"sft"}),
        ({}, {"reward": {"packing": True}}, {"reward"}),
        ({}, {"sft": {"deepspeed": {"liger": True}}}, {"sft"}),
    ],
    ids=lambda value: " ".join(sorted(value)) if isinstance(value, set) else str(value),
)
def test_a_setting_of_chats_changes_the_keys_of_these_stages(
    before: dict[str, object], after: dict[str, object], changed: set[str]
) -> None:
    old, new = hashes(**before), hashes(**after)
    assert {stage for stage in old if old[stage] != new[stage]} == changed
