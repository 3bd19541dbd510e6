"""The demo's task: disjoint parts, right gold answers, right worked solutions, one data set a seed."""

import random
import re
import string

import pytest

from limbeck.demo import task

SEEDS = [1, 2, 3, 11]
NUMBERS = {letter: number for number, letter in enumerate(string.ascii_lowercase[:23])}


def letters_of(prompt: str) -> list[str]:
    """The letters of a prompt, read from its text alone."""
    word, *letters = prompt.split()
    assert word == "sum"
    return letters


def plain_sum(letters: list[str]) -> str:
    """The gold answer, by other means than the module's own."""
    total = 0
    for letter in letters:
        total = (total + NUMBERS[letter]) % 23
    return string.ascii_uppercase[total]


@pytest.mark.parametrize("seed", SEEDS)
def test_no_two_problems_of_a_split_have_the_same_letters(seed: int) -> None:
    split = task.make_split(seed)

    keys = [tuple(sorted(letters_of(problem.prompt))) for problem in (*split.train, *split.heldout)]

    assert (len(split.train), len(split.heldout)) == (task.NUM_TRAIN, task.NUM_HELDOUT)
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("seed", SEEDS)
def test_pretraining_never_draws_the_letters_of_a_split(seed: int) -> None:
    split = task.make_split(seed)
    rng = random.Random(seed)  # noqa: S311
    reserved = split.keys
    drawn = [task.draw_problem(rng, reserved) for _ in range(3000)]

    asked = {tuple(sorted(letters_of(problem.prompt))) for problem in (*split.train, *split.heldout)}
    seen = {tuple(sorted(letters_of(problem.prompt))) for problem in drawn}

    assert len(asked) == len(reserved)
    assert not asked & seen


def test_an_excluded_problem_is_excluded_in_every_order_of_its_letters() -> None:
    problem = task.Problem((3, 1, 4, 1))
    turned = task.Problem((1, 1, 3, 4))

    assert problem.prompt != turned.prompt
    assert problem.key == turned.key


@pytest.mark.parametrize("seed", SEEDS)
def test_gold_answers_equal_a_plain_sum(seed: int) -> None:
    split = task.make_split(seed)

    for problem in (*split.train, *split.heldout):
        assert problem.answer == plain_sum(letters_of(problem.prompt))


@pytest.mark.parametrize("seed", SEEDS)
def test_worked_solutions_are_right_at_every_step_and_use_each_letter_once(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311
    for problem in task.make_split(seed).train:
        solution = problem.work_out(rng)
        *steps, sign, answer = solution.split()
        used = [steps[0], *steps[1::2]]
        sums = steps[2::2]

        assert sign == "="
        assert answer == problem.answer == sums[-1]
        assert sorted(used) == sorted(letters_of(problem.prompt))
        assert sums == [plain_sum(used[: count + 2]) for count in range(len(sums))]
        assert re.search(task.ANSWER_PATTERN, solution).group(1) == problem.answer  # type: ignore[union-attr]
        # One more for the end token.
        assert len(solution.split()) + 1 <= task.MAX_COMPLETION_TOKENS


def test_solutions_of_one_problem_take_different_orders() -> None:
    rng = random.Random(1)  # noqa: S311
    problem = task.Problem((2, 5, 10, 0, 7))

    assert len({problem.work_out(rng) for _ in range(50)}) > 20


def test_an_answer_that_is_not_the_end_is_none() -> None:
    assert re.search(task.ANSWER_PATTERN, "a b B = B c") is None


def test_every_text_of_the_task_is_made_of_its_words() -> None:
    rng = random.Random(1)  # noqa: S311
    for problem in task.make_split(1).train[:200]:
        text = task.JUDGE_TEMPLATE.format(prompt=problem.prompt, completion=problem.work_out(rng))

        assert set(text.split()) <= set(task.WORDS)
    assert len(set(task.WORDS)) == len(task.WORDS)


def test_a_seed_gives_the_same_data_and_another_seed_gives_other_data() -> None:
    assert task.make_split(7) == task.make_split(7)
    assert task.make_split(7).keys != task.make_split(8).keys
    shared = task.make_split(7).keys & task.make_split(8).keys
    assert len(shared) < 100


@pytest.mark.parametrize(
    ("solution", "mistake"),
    [
        ("c f H a H c J = J", None),
        ("k f P a P c R = R", 0),
        ("c f I a I c K = K", 2),
        ("c f H f M a M = M", 3),
        ("c f H a H c J J", 7),
        ("c f H a H c J = K", 8),
        ("c f H a H c J = J a", 9),
        ("c f H = H", 3),
        ("c f H", 3),
        ("", 0),
    ],
    ids=[
        "right",
        "a letter that is not asked",
        "a wrong sum",
        "a letter used twice",
        "no sign",
        "a wrong answer",
        "words after the answer",
        "letters left out",
        "cut short",
        "empty",
    ],
)
def test_the_first_mistake_is_found(solution: str, mistake: int | None) -> None:
    assert task.Problem((2, 5, 0, 2)).first_mistake(solution) == mistake


@pytest.mark.parametrize("num_words", range(12))
def test_a_right_beginning_is_gone_on_from(num_words: int) -> None:
    rng = random.Random(1)  # noqa: S311
    for problem in task.make_split(1).train[:200]:
        words = problem.work_out(rng).split()
        begun = words[: min(num_words, len(words))]
        finished = problem.work_out(rng, begun)

        assert problem.first_mistake(finished) is None
        assert finished.split()[: len(begun)] == begun
