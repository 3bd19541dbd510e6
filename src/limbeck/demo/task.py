"""The demo's task: sums of letters modulo 23, worked out step by step in any order.

A problem is "sum c f k a" (a is 0, w is 22). A worked solution takes the letters in an order of its
choice and keeps a running sum in capitals: "f k P a P c R = R". There are many right ways to one answer,
so a model that errs in one of them is outvoted by the others; with one fixed order of steps its errors
would repeat and a vote would gain nothing. Capitals for sums keep the two roles of a letter apart,
which is what lets a small network see whether a solution used each letter once.
"""

import random
from collections.abc import Sequence, Set
from dataclasses import dataclass

LETTERS = "abcdefghijklmnopqrstuvw"
LENGTHS = (4, 5, 6)
"""How many letters a problem may have."""
MAX_COMPLETION_TOKENS = 16
"""The longest right solution has 14 tokens, the end token included."""

ANSWER_PATTERN = r"= ([A-W])$"
"""Finds the answer of a completion; a completion that goes on after it has none."""
JUDGE_TEMPLATE = "{prompt} : {completion} judge"
"""The judge prompt. It shows problem and solution in the order in which they were produced, so the circuits
that solve also serve to judge."""
YES, NO = "yes", "no"

WORDS = ("sum", ":", "judge", "=", YES, NO, *LETTERS, *LETTERS.upper())
"""Every word of the task; the tokenizer knows no others."""

NUM_TRAIN = 500
NUM_HELDOUT = 1000

Key = tuple[int, ...]


@dataclass(frozen=True)
class Problem:
    """One problem: its letters as numbers, in the order in which the prompt shows them."""

    values: tuple[int, ...]

    @property
    def key(self) -> Key:
        """The same for all orders of the same letters; disjoint sets are disjoint in this."""
        return tuple(sorted(self.values))

    @property
    def prompt(self) -> str:
        """The text that is asked."""
        return "sum " + " ".join(LETTERS[value] for value in self.values)

    @property
    def answer(self) -> str:
        """The right answer, a capital letter."""
        return _sum_letter(sum(self.values))

    def work_out(self, rng: random.Random, begun: Sequence[str] = ()) -> str:
        """A right solution that takes the letters in random order.

        Args:
            rng: Chooses the order.
            begun: The words of a right beginning, which the solution goes on from.
        """
        letters = [word for word in begun if word.islower()]
        left = [LETTERS[value] for value in self.values]
        for letter in letters:
            left.remove(letter)
        words: list[str] = []
        total = 0
        for letter in letters + rng.sample(left, len(left)):
            total += LETTERS.index(letter)
            words += [letter, _sum_letter(total)] if words else [letter]
        return " ".join([*words, "=", _sum_letter(total)])

    def first_mistake(self, solution: str) -> int | None:
        """The index of a solution's first wrong or missing word; None if it is right."""
        left = [LETTERS[value] for value in self.values]
        words, total, num_steps = solution.split(), 0, 2 * len(self.values) - 1
        for index, word in enumerate(words):
            if index == 0 or (index % 2 and left):
                if word not in left:
                    return index
                left.remove(word)
                total += LETTERS.index(word)
            elif index > num_steps + 1 or word != ("=" if index == num_steps else _sum_letter(total)):
                return index
        return None if len(words) == num_steps + 2 else len(words)


@dataclass(frozen=True)
class Split:
    """The problems of one run. The two parts share no multiset of letters."""

    train: list[Problem]
    heldout: list[Problem]

    @property
    def keys(self) -> frozenset[Key]:
        """What pre-training must never see."""
        return frozenset(problem.key for problem in (*self.train, *self.heldout))


def make_split(seed: int, num_train: int = NUM_TRAIN, num_heldout: int = NUM_HELDOUT) -> Split:
    """The train and held-out problems of a seed; no two of them have the same letters."""
    rng = random.Random(f"limbeck demo split {seed}")  # noqa: S311
    seen: set[Key] = set()
    problems: list[Problem] = []
    while len(problems) < num_train + num_heldout:
        problem = draw_problem(rng, seen)
        seen.add(problem.key)
        problems.append(problem)
    return Split(problems[:num_train], problems[num_train:])


def draw_problem(rng: random.Random, excluded: Set[Key]) -> Problem:
    """A random problem whose letters, in any order, are not in `excluded`."""
    while True:
        problem = Problem(tuple(rng.choices(range(len(LETTERS)), k=rng.choice(LENGTHS))))
        if problem.key not in excluded:
            return problem


def _sum_letter(total: int) -> str:
    return LETTERS[total % len(LETTERS)].upper()
