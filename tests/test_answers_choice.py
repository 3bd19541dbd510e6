"""Final answers of the kind `choice`: which letter completions of real models settle on."""

import pytest

from limbeck.answers import extract_answer, normalise
from limbeck.answers.choice import letter_of
from limbeck.config import TaskConfig

TASK = TaskConfig(kind="choice")
CASES: list[tuple[str, str, str | None]] = [
    ("letter", "C", "C"),
    ("letter and dot", "C.", "C"),
    ("letter in parentheses", "(C)", "C"),
    ("letter in brackets", "[B]", "B"),
    ("bold letter", "**C**", "C"),
    ("bold letter in parentheses", "**(C)**", "C"),
    ("letter and parenthesis", "D)", "D"),
    ("letter on its own line", "It is the capital of France.\n\nB", "B"),
    ("letter then text", "C. Paris", "C"),
    ("letter in parentheses then text", "(B) Mitochondria", "B"),
    ("bold letter with text", "**B. Mitochondria**", "B"),
    ("the answer is", "The answer is C.", "C"),
    ("the answer is, in parentheses", "So the answer is (C).", "C"),
    ("the answer is, bold", "The answer is **D**.", "D"),
    ("the correct answer is", "The correct answer is B) 1945.", "B"),
    ("the answer is option", "The answer is option A.", "A"),
    ("the answer is choice", "The best answer is choice (E).", "E"),
    ("the answer is letter", "The answer is the one under letter B: answer: B", "B"),
    ("answer colon", "Answer: B", "B"),
    ("bold answer colon", "**Answer: B**", "B"),
    ("bold answer, then letter", "**Answer:** B", "B"),
    ("answer colon with text", "Answer: (D) all of the above", "D"),
    ("answer, next line", "Final answer:\n\nA", "A"),
    ("answer in lower case", "answer: c", "C"),
    ("answer in lower case parentheses", "The answer is (d).", "D"),
    ("answer in dollars", "The answer is $\\text{(B)}$.", "B"),
    ("box", r"\boxed{C}", "C"),
    ("box of text", r"\boxed{\text{C}}", "C"),
    ("box of parentheses", r"\boxed{(A)}", "A"),
    ("box of text in parentheses", r"\boxed{\textbf{(E)}}", "E"),
    ("box with text", r"\boxed{\text{(E)}\ 12}", "E"),
    ("box with its option", r"$\boxed{\textbf{(B) } 42}$", "B"),
    ("hashes", "It must be iron.\n#### D", "D"),
    ("hashes in parentheses", "#### (D)", "D"),
    ("several candidates", "At first the answer is A. But on reflection, the answer is D.", "D"),
    ("two boxes", r"\boxed{A}? No, \boxed{B}.", "B"),
    ("is correct", "Only option C is correct.", "C"),
    ("is the right answer", "Therefore B is the right answer.", "B"),
    ("must be the best", "Hence (D) must be the best.", "D"),
    ("I choose", "I choose B.", "B"),
    ("I would go with", "I would go with option C here.", "C"),
    ("select", "We select (A).", "A"),
    ("correct option", "The correct option is D.", "D"),
    ("correct choice", "Correct choice: A", "A"),
    ("because", "The answer is A because water boils at 100 degrees.", "A"),
    ("bracketed after elimination", "(A) has no charge and (B) is too heavy. That leaves (D)", "D"),
    ("bold after elimination", "The first two are out. What remains is **C**", "C"),
    ("many options", "The answer is J.", "J"),
    ("letter I", "The answer is (I).", "I"),
    ("with a comma", "The answer is B, the second one.", "B"),
    ("with a colon", "The answer is B: Paris", "B"),
    ("solution", "Solution: E", "E"),
    # No letter that is meant.
    ("good answer", "A good answer to this needs more thought.", None),
    ("article", "The answer is a good example of irony.", None),
    ("capital article", "The answer is A good example of irony.", None),
    ("pronoun", "The answer is I think somewhere in the text.", None),
    ("name", "The answer is Albert Einstein.", None),
    ("vitamin", "You get it from vitamins, for example.", None),
    ("apostrophe", "The answer is I'd rather not say.", None),
    ("options listed", "A. Paris\nB. London\nC. Rome\nD. Berlin", None),
    ("two at once", "The answer is A or B.", None),
    ("two at once with a comma", "The answer is A, C", None),
    ("two in a box", r"\boxed{A, C}", None),
    ("both", "The answer is A and D.", None),
    ("negated", "The answer is not B.", None),
    ("cut in a box", r"The answer is \boxed{", None),
    ("cut in a text in a box", r"The answer is \boxed{\text{(B", None),
    ("cut", "The answer is", None),
    ("empty", "", None),
    ("refusal", "I'm sorry, I cannot answer that.", None),
    ("refusal with letters", "I cannot decide between (A) and (B).", None),
    ("none", "None of the options fits.", None),
]


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_letter_is_found(text: str, expected: str | None) -> None:
    assert extract_answer(text, TASK) == expected


@pytest.mark.parametrize("gold", ["C", "c", "(C)", "C.", " C ", "**C**", "C) Paris"])
def test_gold_letters_are_brought_into_the_same_form(gold: str) -> None:
    assert normalise(gold, TASK) == "C"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        *[
            ("Rome", 2),
            ("C", 2),
            ("c", 2),
            ("(C)", 2),
            ("C.", 2),
            ("2", 2),
            ("2.0", 2),
            ("0", 0),
            (" Rome ", 2),
        ],
        *[
            ("4", None),
            ("E", None),
            ("Oslo", None),
            ("-1", None),
            ("", None),
            ("1.5", None),
            ("\u00b2", None),
        ],
    ],
)
def test_a_gold_answer_is_a_text_a_letter_or_an_index(answer: str, expected: int | None) -> None:
    assert letter_of(answer, ["Paris", "London", "Rome", "Berlin"]) == expected


def test_the_text_of_an_option_counts_before_its_letter_and_its_index() -> None:
    assert letter_of("2", ["1", "2", "3"]) == 1
    assert letter_of("A", ["B", "A"]) == 1
