"""The final answer of a completion: how it is found, its normal form, and when two are surely the same.

One file for each `task.kind` that looks for an answer in a text; of the kind `open` the text is the answer.
Nothing here waits, or parses more than a regular expression can: what takes algebra is asked of a function,
which is `limbeck.comparing.Comparer`'s.
"""

from collections.abc import Callable

from limbeck.answers import choice, maths_form, maths_same, maths_search, pattern, words
from limbeck.config import TaskConfig
from limbeck.thinking import without_thinking

Same = Callable[[str, str], bool]
"""Whether two answers in their normal forms are the same answer."""


def extract_answer(text: str, task: TaskConfig, *, finished: bool = True) -> str | None:
    """The answer a completion ends with, in its normal form.

    Args:
        text: The completion.
        task: How answers are found.
        finished: Whether the model ended by itself. Of the kind `open`, half a text is no answer.

    Returns:
        None when the completion gives none: it refuses, was cut off within its answer, or names several
        choices at once.
    """
    if task.strip_thinking:
        text = without_thinking(text)
    match task.kind:
        case "pattern":
            found = pattern.find(text, task.answer_pattern)
        case "math":
            found = maths_search.find(text)
        case "choice":
            found = choice.find(text)
        case "text":
            found = words.find(text)
        case "open":
            found = text if finished else None
    return (normalise(found, task) or None) if found is not None else None


def normalise(answer: str, task: TaskConfig) -> str:
    """The form in which answers of this kind are compared; gold answers are brought into it too."""
    match task.kind:
        case "pattern":
            return pattern.normal_form(answer, task.case_sensitive)
        case "math":
            return maths_form.normal_form(answer, task.case_sensitive)
        case "choice":
            return choice.normal_form(answer)
        case "text":
            return words.normal_form(answer, task.case_sensitive)
        case "open":
            return answer.strip()


def same(left: str, right: str, task: TaskConfig, algebra: Same) -> bool:
    """Whether two normal forms are the same answer.

    Args:
        left: One.
        right: The other one.
        task: Its kind is read: all kinds but `math` know equal forms alone.
        algebra: Whether two formulas are equal; asked only where their forms do not decide.
    """
    return left == right or (task.kind == "math" and maths_same.same(left, right, algebra))
