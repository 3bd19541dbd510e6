"""Published data sets: each row here has exactly the columns, types and forms of the official files."""

from typing import Any, get_args

import pytest

from limbeck.config import Config, Preset, parse_config
from limbeck.errors import ConfigError
from limbeck.presets import FORMS, Aside, check_task
from limbeck.questions import Question, columns, preset_of, question

GSM8K: dict[str, Any] = {
    "question": "Natalia sold clips to 48 of her friends in April, and then half as many in May. How many?",
    "answer": "She sold 48/2 = <<48/2=24>>24 clips in May.\nAltogether 48+24 = <<48+24=72>>72.\n#### 72",
}
GSM_PLUS: dict[str, Any] = {
    "question": "15 of the women wear 4-inch heels and 10 wear 2-inch heels. What is the average height?",
    "solution": "15 * 4 = 60 inches.\n10 * 2 = 20 inches.\n80 / 25 = 3.2\n#### 3.2",
    "answer": "3.2",
    "perturbation_type": "digit expansion",
    "seed_question": "Three wear 4 inch heels and three wear 2 inch heels. What is the average height?",
    "seed_solution": "3 * 4 = 12. 3 * 2 = 6. 18 / 6 = 3\n#### 3",
    "seed_answer": "3",
}
MMLU_PRO: dict[str, Any] = {
    "question_id": 70,
    "question": "Which shape has three sides?",
    "options": ["square", "triangle", "circle", "N/A"],
    "answer": "B",
    "answer_index": 1,
    "cot_content": "",
    "category": "math",
    "src": "ori_mmlu-elementary",
}
ALPACA_EVAL: dict[str, Any] = {
    "dataset": "helpful_base",
    "instruction": "What are the names of some famous actors?",
    "output": "Several famous actors started on Broadway, among them ...",
    "generator": "text_davinci_003",
}
MATH, CHOICE = {"kind": "math"}, {"kind": "choice", "shuffle_options": False}
OPEN = {"kind": "open"}


def read(preset: Preset, row: dict[str, Any], **task: Any) -> Question | Aside:
    sections = {"prepare": {"preset": preset}, "task": task, "label": {"rule": "judge"}}
    return question(row, preset, parse_config(sections))


ANSWERS: dict[str, tuple[Preset, dict[str, Any], dict[str, Any], str | None]] = {
    "GSM8K: the number after the hashes": ("gsm8k", GSM8K, MATH, "72"),
    "GSM8K: without thousands commas": ("gsm8k", GSM8K | {"answer": "#### 1,234,567"}, MATH, "1234567"),
    "GSM8K: negative": ("gsm8k", GSM8K | {"answer": "so\n#### -3"}, MATH, "-3"),
    "GSM8K: the last hashes": ("gsm8k", GSM8K | {"answer": "#### 1\n#### 2.50"}, MATH, "2.50"),
    "GSM8K: no answer is no gold": ("gsm8k", {"question": "How many?"}, MATH, None),
    "GSM-Plus: the answer, not the seed's": ("gsm_plus", GSM_PLUS, MATH, "3.2"),
    "MMLU-Pro: the letter": ("mmlu_pro", MMLU_PRO, CHOICE, "B"),
    "MMLU-Pro: a letter behind padding": (
        "mmlu_pro",
        MMLU_PRO | {"options": ["square", "N/A", "triangle"], "answer": "C", "answer_index": 2},
        CHOICE,
        "B",
    ),
    "MMLU-Pro: an option that is a letter of another": (
        "mmlu_pro",
        MMLU_PRO | {"options": ["B", "A", "C"]},
        CHOICE,
        "B",
    ),
    "MMLU-Pro: ten options": (
        "mmlu_pro",
        MMLU_PRO | {"options": [f"o{n}" for n in range(10)], "answer": "J", "answer_index": 9},
        CHOICE,
        "J",
    ),
    "AlpacaEval: another model's output is no gold": ("alpaca_eval", ALPACA_EVAL, OPEN, None),
}


@pytest.mark.parametrize(("preset", "row", "task", "answer"), ANSWERS.values(), ids=ANSWERS)
def test_gold_is_read_from_its_official_form(
    preset: Preset, row: dict[str, Any], task: dict[str, Any], answer: str | None
) -> None:
    found = read(preset, row, **task)
    assert isinstance(found, Question)
    assert found.answer == answer
    asked = row[FORMS[preset].columns[0]]
    assert found.prompt == asked or found.prompt.startswith(f"{asked}\nA. ")


def test_padding_is_no_option() -> None:
    found = read("mmlu_pro", MMLU_PRO, **CHOICE)
    assert isinstance(found, Question)
    assert found.prompt == "Which shape has three sides?\nA. square\nB. triangle\nC. circle"


def test_the_right_option_goes_along_when_they_are_shuffled() -> None:
    letters = set()
    for number in range(40):
        row = MMLU_PRO | {"question": f"shape {number}?"}
        found = read("mmlu_pro", row, kind="choice")
        assert isinstance(found, Question)
        assert f"{found.answer}. triangle" in found.prompt.split("\n")
        letters.add(found.answer)
    assert letters == set("ABC")


BROKEN: dict[str, tuple[Preset, dict[str, Any], dict[str, Any], str]] = {
    "GSM8K without hashes": ("gsm8k", GSM8K | {"answer": "72"}, MATH, "no #### and number in the answer"),
    "GSM8K with words behind them": (
        "gsm8k",
        GSM8K | {"answer": "#### many"},
        MATH,
        "no #### and number in the answer",
    ),
    "MMLU-Pro, two answers": (
        "mmlu_pro",
        MMLU_PRO | {"answer": "A"},
        CHOICE,
        "answer and answer_index differ",
    ),
    "MMLU-Pro, padding as the answer": (
        "mmlu_pro",
        MMLU_PRO | {"answer": "D", "answer_index": 3},
        CHOICE,
        "answer_index not one of the options",
    ),
    "MMLU-Pro, an index beyond": (
        "mmlu_pro",
        MMLU_PRO | {"answer": "E", "answer_index": 4},
        CHOICE,
        "answer_index not one of the options",
    ),
    "MMLU-Pro without options": (
        "mmlu_pro",
        MMLU_PRO | {"options": None},
        CHOICE,
        "options not a list of texts",
    ),
    "a row of another data set": ("alpaca_eval", GSM8K, OPEN, "prompt missing"),
}


@pytest.mark.parametrize(("preset", "row", "task", "reason"), BROKEN.values(), ids=BROKEN)
def test_rows_of_another_form_are_set_aside(
    preset: Preset, row: dict[str, Any], task: dict[str, Any], reason: str
) -> None:
    assert read(preset, row, **task) == Aside(reason, is_broken=True)


def test_a_question_that_cannot_be_answered_by_intent_is_left_out_and_is_not_broken() -> None:
    row = GSM_PLUS | {"answer": "None", "perturbation_type": "critical thinking"}
    found = read("gsm_plus", row, **MATH)
    assert isinstance(found, Aside)
    assert not found.is_broken
    assert "critical thinking" in found.reason


UNFIT = [
    ("gsm8k", "choice"),
    ("gsm_plus", "choice"),
    ("mmlu_pro", "pattern"),
    ("mmlu_pro", "math"),
    ("mmlu_pro", "text"),
    ("alpaca_eval", "pattern"),
    ("alpaca_eval", "math"),
    ("alpaca_eval", "choice"),
    ("alpaca_eval", "text"),
    ("mmlu_pro", "open"),
]


@pytest.mark.parametrize(("preset", "kind"), UNFIT)
def test_a_kind_of_task_that_cannot_work_is_refused_with_the_one_to_set(preset: Preset, kind: str) -> None:
    with pytest.raises(ConfigError, match=rf"kind `{kind}` cannot be found in the preset `{preset}`") as told:
        check_task(preset, kind)
    fitting = FORMS[preset].fitting.partition(",")[0]
    assert f"expected {fitting}" in str(told.value)
    check_task(preset, fitting)


def test_a_kind_that_is_not_known_to_fail_is_taken() -> None:
    for preset in get_args(Preset):
        for kind in {"pattern", "math", "choice", "text", "open", "later"} - {
            k for p, k in UNFIT if p == preset
        }:
            check_task(preset, kind)
    check_task(None, "choice")


def test_every_preset_has_its_form() -> None:
    assert set(FORMS) == set(get_args(Preset))


def test_held_out_data_may_have_another_form() -> None:
    config = parse_config({"prepare": {"preset": "gsm8k", "heldout_preset": "gsm_plus"}})
    assert [preset_of(side, config) for side in ("prompts", "heldout")] == ["gsm8k", "gsm_plus"]
    config = parse_config({"prepare": {"preset": "gsm8k"}})
    assert [preset_of(side, config) for side in ("prompts", "heldout")] == ["gsm8k", "gsm8k"]
    assert preset_of("heldout", Config()) is None


def test_own_columns_have_own_names() -> None:
    fields = {"prompt": "frage", "answer": "antwort", "options": "wahl"}
    config = parse_config({"prepare": {"fields": fields}, "task": CHOICE})
    assert columns(None, config) == ("frage", "antwort", "wahl")
    for options in (["ja", "nein"], '["ja", "nein"]'):  # a cell of CSV holds a list as JSON
        found = question({"frage": "so?", "antwort": "nein", "wahl": options, "prompt": "x"}, None, config)
        assert isinstance(found, Question)
        assert (found.prompt, found.answer) == ("so?\nA. ja\nB. nein", "B")


def test_own_columns_beside_a_preset_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"`preset` or `fields`"):
        parse_config({"prepare": {"preset": "gsm8k", "fields": {"prompt": "question"}}})
