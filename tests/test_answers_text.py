"""Final answers of the kind `text`: a few words."""

import pytest

from limbeck.answers import extract_answer, normalise
from limbeck.config import TaskConfig

TASK = TaskConfig(kind="text")
CASES: list[tuple[str, str, str | None]] = [
    ("word", "Paris", "paris"),
    ("word and dot", "Paris.", "paris"),
    ("the answer is", "Let me think. The answer is Paris.", "paris"),
    ("the answer is, bold", "The answer is **New York**.", "new york"),
    ("answer colon", "Answer: The Beatles", "beatles"),
    ("answer in quotes", 'The answer is "Hamlet".', "hamlet"),
    ("answer on the next line", "Final answer:\nMarie Curie", "marie curie"),
    ("answer before more lines", "Answer: Mars\nIt is red because of iron.", "mars"),
    ("answer before a sentence", "The answer is Mars. It is red.", "mars"),
    ("initials", "The answer is J. R. R. Tolkien.", "j r r tolkien"),
    ("title", "The answer is Dr. Watson.", "dr watson"),
    ("box", r"\boxed{Paris}", "paris"),
    ("box of text", r"\boxed{\text{New York}}", "new york"),
    ("hashes", "He wrote it in 1603.\n#### Hamlet", "hamlet"),
    ("several candidates", "The answer is Venus. No, the answer is Mars.", "mars"),
    ("article", "a whale", "whale"),
    ("capitals", "PARIS", "paris"),
    ("spaces", "  New \t York ", "new york"),
    ("thousands", "1,234 people", "1234 people"),
    ("decimal", "3.5", "3.5"),
    ("negative", "-5", "-5"),
    ("minus sign", "\u22125", "-5"),
    ("percent", "50%", "50%"),
    ("currency", "$5", "$5"),
    ("date", "12/25/2020", "12/25/2020"),
    ("time", "10:30", "10:30"),
    ("hyphen", "well-known", "well known"),
    ("dash", "well\u2013known", "well known"),
    ("apostrophe", "Newton\u2019s law", "newtons law"),
    ("accents composed", "Cafe\u0301", "caf\u00e9"),
    ("sharp s", "Stra\u00dfe", "strasse"),
    ("C++", "C++", "c++"),
    ("C#", "C#", "c#"),
    ("Chinese", "\u5317\u4eac\u3002", "\u5317\u4eac"),
    ("only an article", "A", "a"),
    ("list", "red, green and blue", "red green and blue"),
    ("yes", "Yes!", "yes"),
    # Real endings of short answers. Which part of a bare sentence answers, its question alone could tell:
    # it is read whole, on either side of "is".
    ("asked for, in a sentence", "The capital of France is Paris. The answer is Paris.", "paris"),
    ("asked for, in a line of its own", "The capital of France is Paris.\n\nAnswer: Paris", "paris"),
    ("sentence, answer at its end", "The capital of France is Paris.", "capital of france is paris"),
    ("sentence, answer at its beginning", "Paris is the capital of France.", "paris is capital of france"),
    ("sentence with a pronoun", "It is Paris.", "it is paris"),
    ("title with a pronoun", "It's a Wonderful Life", "its wonderful life"),
    ("title with is", "Love Is Blind", "love is blind"),
    ("sentence that denies", "The capital of Australia is not Sydney.", "capital of australia is not sydney"),
    ("two sentences in a line", "Paris. It is on the Seine.", "paris it is on seine"),
    ("two lines without the words", "The capital of France is Paris.\nIt is on the Seine.", None),
    ("bold in a sentence", "It was written by **Jane Austen**.", "it was written by jane austen"),
    ("answer would be", "The answer would be Lake Baikal.", "lake baikal"),
    ("answer to the question", "The answer to your question is Marie Curie.", "marie curie"),
    ("final answer, bold", "**Final Answer:** Mount Everest", "mount everest"),
    (
        "answer with a relative clause",
        "The answer is Mercury, which orbits the Sun.",
        "mercury which orbits sun",
    ),
    ("reasoning without an answer", "First I add.\nThen I think more.", None),
    ("long line", "word " * 80, None),
    ("refusal", "I cannot answer this.", None),
    ("refusal after answer is", "The answer is unknown.", None),
    ("do not know", "I don't know.", None),
    ("cut", "The answer is", None),
    ("cut in a box", r"It is \boxed{Pari", None),
    ("empty", "", None),
    ("signs", "...", None),
]


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_words_are_found_in_their_normal_form(text: str, expected: str | None) -> None:
    assert extract_answer(text, TASK) == expected


def test_case_counts_when_asked() -> None:
    task = TaskConfig(kind="text", case_sensitive=True)
    assert extract_answer("The answer is US.", task) == "US"
    assert normalise("us", task) == "us"
