"""Published data sets in their official form: what is asked in a row, and where its gold answer stands.

A preset reads rows and changes no other setting. The official addresses, splits and licences, and the
settings of `task` that go with each, are in docs/data.md; `examples/` has a run file for each.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from limbeck.config import Preset
from limbeck.errors import ConfigError

PADDING = "N/A"
"""What MMLU-Pro fills short lists of options up with."""
MMLU_PRO_COLUMNS = ("question", "options", "answer", "answer_index")
GSM8K_ANSWER = re.compile(r"#### (-?[0-9.,]+)")


class Cells(NamedTuple):
    """What a row holds, unchecked."""

    prompt: object
    answer: object
    options: object = None


class Aside(NamedTuple):
    """Why a row is no question."""

    reason: str
    is_broken: bool = True
    """Whether it counts for `prepare.max_bad_fraction`; a row that is meant to be left out does not."""


class Form(NamedTuple):
    """How one data set is read."""

    columns: tuple[str, ...]
    """What is read of a row; the first is what is asked."""
    cells: Callable[[Mapping[str, Any]], Cells | Aside]
    unfit: frozenset[str]
    """Values of `task.kind` that cannot work."""
    fitting: str
    """What to set instead."""


def gsm8k(row: Mapping[str, Any]) -> Cells | Aside:
    """GSM8K: `answer` is a worked solution that ends in `#### 1,234`; gold is the number, without commas.

    Source: Cobbe et al. 2021 (arXiv 2110.14168), and `grade_school_math/dataset.py` of
    openai/grade-school-math, which finds the number by the same expression and drops its commas. Columns
    and splits: the card of openai/gsm8k.
    """
    solution = row.get("answer")
    if not isinstance(solution, str):
        return Cells(row.get("question"), solution)
    numbers = GSM8K_ANSWER.findall(solution)
    if not numbers:
        return Aside("no #### and number in the answer")
    return Cells(row.get("question"), numbers[-1].replace(",", ""))


def gsm_plus(row: Mapping[str, Any]) -> Cells | Aside:
    """GSM-Plus: `answer` is the number; where it is the word None, the question cannot be answered.

    These rows (`perturbation_type` critical thinking, one of eight) lack what is needed to answer. They
    are left out: no number is right, so an answer found by its number would always count as wrong, and a
    pseudo label would teach to make one up.

    Source: Li et al. 2024 (arXiv 2402.19255), columns by the README of qtli/GSM-Plus, whose
    `scripts/report_metrics.py` gives its figures also without these rows.
    """
    if row.get("answer") == "None":
        return Aside("not answerable by intent (GSM-Plus, critical thinking)", is_broken=False)
    return Cells(row.get("question"), row.get("answer"))


def mmlu_pro(row: Mapping[str, Any]) -> Cells | Aside:
    """MMLU-Pro: up to ten `options`, and the right one by `answer_index` and by its letter in `answer`.

    Options `N/A` are padding, as in the official evaluation, and go.

    Source: Wang et al. 2024 (arXiv 2406.01574), columns by the card of TIGER-Lab/MMLU-Pro.
    """
    question, options, letter, index = map(row.get, MMLU_PRO_COLUMNS)
    if not isinstance(options, list):
        return Cells(question, None, options or "")  # the list is what such a question cannot do without
    kept = [option for option in options if option != PADDING]
    if letter is None and index is None:
        return Cells(question, None, kept)
    if not isinstance(index, int) or not 0 <= index < len(options) or options[index] == PADDING:
        return Aside("answer_index not one of the options")
    if letter != "ABCDEFGHIJ"[index : index + 1]:
        return Aside("answer and answer_index differ")
    return Cells(question, options[index], kept)


def alpaca_eval(row: Mapping[str, Any]) -> Cells | Aside:
    """AlpacaEval: `instruction` is asked; `output` is another model's answer, which is no gold.

    Source: Li et al. 2023, columns by `alpaca_eval.py` of tatsu-lab/alpaca_eval (dataset, instruction,
    output, generator).
    """
    return Cells(row.get("instruction"), None)


FORMS: dict[Preset, Form] = {
    "gsm8k": Form(("question", "answer"), gsm8k, frozenset({"choice"}), "math"),
    "gsm_plus": Form(("question", "answer"), gsm_plus, frozenset({"choice"}), "math"),
    "mmlu_pro": Form(MMLU_PRO_COLUMNS, mmlu_pro, frozenset({"pattern", "math", "text", "open"}), "choice"),
    "alpaca_eval": Form(
        ("instruction",),
        alpaca_eval,
        frozenset({"pattern", "math", "choice", "text"}),
        "open, and label.rule to judge: no two such answers are alike",
    ),
}


def check_task(preset: Preset | None, kind: str) -> None:
    """Refuse a kind of task that cannot work with a data set; what is not known to fail is taken.

    Args:
        preset: How rows are read; None goes with every kind.
        kind: The value of `task.kind`.

    Raises:
        ConfigError: saying which kind to set.
    """
    if preset is None or kind not in FORMS[preset].unfit:
        return
    raise ConfigError(
        f"answers of the kind `{kind}` cannot be found in the preset `{preset}`",
        where="config.task.kind",
        expected=FORMS[preset].fitting,
        got=kind,
        remedy="Correct it, or take the preset away and name the columns in prepare.fields",
    )
