"""Train texts that share a run of words with a held-out one."""

import numpy as np
import pytest

from limbeck.contamination import Overlap
from limbeck.wording import runs, wording

QUESTION = "if a train leaves the station at noon and drives at 80 km an hour when does it arrive"
LONG = "Here is a story. " * 40 + f"And then he asked: {QUESTION.upper()}? " + "Nobody knew. " * 40


def contaminated(
    heldout: list[str], train: list[str], length: int = 13, max_alike: int = 10
) -> dict[int, int]:
    """Train row -> held-out row."""
    overlap = Overlap(
        ((row, runs(wording(text).words_T, length)) for row, text in enumerate(heldout)), max_alike
    )
    for row, text in enumerate(train):
        overlap.add(row, runs(wording(text).words_T, length))
    return overlap.contaminated()


def test_a_held_out_question_inside_a_long_train_prompt_is_found() -> None:
    assert contaminated(["what?", QUESTION], ["clean", LONG]) == {1: 1}


@pytest.mark.parametrize(("num_words", "found"), [(12, False), (13, True), (14, True)])
def test_the_length_of_the_run_decides(num_words: int, found: bool) -> None:
    part = "once upon " + " ".join(QUESTION.split()[2 : 2 + num_words]) + " the end"
    assert bool(contaminated([QUESTION], [part])) is found


def test_a_run_with_another_number_is_another_run() -> None:
    assert contaminated([QUESTION], [QUESTION.replace("80", "90")]) == {}
    assert contaminated([QUESTION], [QUESTION.replace("80", "90")], length=8) == {0: 0}


@pytest.mark.parametrize(("number", "found"), [(1, True), (10, True), (11, False), (50, False)])
def test_a_run_in_more_than_max_alike_train_prompts_is_common_wording(number: int, found: bool) -> None:
    train = [f"{QUESTION} said the {word}" for word in map(str, range(number))]
    assert contaminated([QUESTION], train) == (dict.fromkeys(range(number), 0) if found else {})


def test_a_rare_run_counts_beside_common_ones() -> None:
    """Twenty prompts have the instruction in common; one of them asks a held-out question too."""
    instruction = "read the text below with care and then say in one word whether it is true or false"
    train = [f"{instruction}: text {n}" for n in range(20)]
    train[7] += f" {QUESTION}"
    assert contaminated([f"{instruction}: text 99", QUESTION], train) == {7: 1}


def test_the_lowest_id_is_named_whatever_the_order() -> None:
    for order in ((5, 3, 9), (9, 5, 3), (3, 9, 5)):
        overlap = Overlap(((owner, runs(wording(QUESTION).words_T, 13)) for owner in order), 10)
        overlap.add(0, runs(wording(QUESTION).words_T, 13))
        assert overlap.contaminated() == {0: 3}


def test_ids_may_have_64_bits() -> None:
    overlap = Overlap([(2**64 - 1, np.array([2**64 - 2], dtype=np.uint64))], 10)
    overlap.add(4, np.array([2**64 - 2, 2**64 - 1], dtype=np.uint64))
    assert overlap.contaminated() == {4: 2**64 - 1}


def test_nothing_is_shared_with_nothing() -> None:
    assert contaminated([], [QUESTION]) == {}
    assert contaminated([QUESTION], []) == {}
