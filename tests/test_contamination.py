"""Train texts that share a run of words with a held-out one."""

import numpy as np
import pytest

from limbeck.contamination import Overlap
from limbeck.wording import runs, wording

QUESTION = "if a train leaves the station at noon and drives at 80 km an hour when does it arrive"
LONG = "Here is a story. " * 40 + f"And then he asked: {QUESTION.upper()}? " + "Nobody knew. " * 40


def contaminated(
    heldout: list[str], train: list[str], length: int = 13, max_alike: int = 10
) -> list[tuple[int, int]]:
    """Pairs (train row, held-out row)."""
    overlap = Overlap((runs(wording(text).words_T, length) for text in heldout), max_alike)
    for row, text in enumerate(train):
        overlap.add(row, runs(wording(text).words_T, length))
    return [(row, text) for row, text in overlap.pairs().tolist()]


def test_a_held_out_question_inside_a_long_train_prompt_is_found() -> None:
    assert contaminated(["what?", QUESTION], ["clean", LONG]) == [(1, 1)]


@pytest.mark.parametrize(("num_words", "found"), [(28, False), (29, True), (35, True)])
def test_seventy_percent_of_the_runs_decide(num_words: int, found: bool) -> None:
    """35 words have 23 runs of 13; of 29 words 17 are left, of 28 words 16."""
    words = [f"w{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(35)]
    part = "once upon " + " ".join(words[:num_words]) + " the end"
    assert bool(contaminated([" ".join(words)], [part])) is found


@pytest.mark.parametrize(("num_words", "found"), [(12, False), (13, True)])
def test_a_text_of_fewer_words_than_a_run_is_in_nothing(num_words: int, found: bool) -> None:
    heldout = " ".join(QUESTION.split()[:num_words])
    assert bool(contaminated([heldout], [LONG])) is found
    assert contaminated([heldout], [LONG], length=5) == [(0, 0)]


@pytest.mark.parametrize(("number", "found"), [(1, True), (10, True), (11, False), (50, False)])
def test_a_run_in_more_than_max_alike_train_prompts_is_common_wording(number: int, found: bool) -> None:
    train = [f"{QUESTION} said the {word}" for word in map(str, range(number))]
    assert contaminated([QUESTION], train) == ([(row, 0) for row in range(number)] if found else [])


def test_a_run_in_more_than_max_alike_held_out_prompts_is_common_wording_too() -> None:
    heldout = [f"{QUESTION} said the {word}" for word in map(str, range(11))]
    assert contaminated(heldout[:10], [QUESTION + " said the 5 of them"]) == [(0, n) for n in range(10)]
    assert contaminated(heldout, [QUESTION + " said nobody"]) == []
    assert contaminated(heldout, [heldout[5]]) == [(0, 5)]


def test_what_is_common_neither_proves_nor_hides_a_copy() -> None:
    """Twenty prompts have an instruction in common; one of them asks a held-out question too."""
    instruction = "read the text below with care and then say in one word whether it is true or false"
    train = [f"{instruction}: text {n}" for n in range(20)]
    train[7] += f" {QUESTION}"
    heldout = [f"{instruction}: text 99", f"{instruction}: {QUESTION}"]
    assert contaminated(heldout, train) == []
    train[7] = f"{instruction}: {QUESTION} and why"
    assert contaminated(heldout, train) == [(7, 1)]


def test_every_held_out_prompt_that_is_held_is_named() -> None:
    longer = QUESTION + " at the other end of the line"
    assert contaminated([longer, QUESTION, longer], [longer]) == [(0, 0), (0, 1), (0, 2)]
    assert contaminated([longer, QUESTION], [QUESTION]) == [(0, 1)]


def test_hashes_may_have_64_bits() -> None:
    overlap = Overlap([np.array([2**64 - 2], dtype=np.uint64)], 10)
    overlap.add(4, np.array([2**64 - 2, 2**64 - 1], dtype=np.uint64))
    assert overlap.pairs().tolist() == [[4, 0]]


def test_nothing_is_shared_with_nothing() -> None:
    assert contaminated([], [QUESTION]) == []
    assert contaminated([QUESTION], []) == []
    assert contaminated(["what?"], ["what?"]) == []
