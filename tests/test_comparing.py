r"""When two answers of the kind `math` are the same, and what becomes of comparisons that never end."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from limbeck.answers import normalise
from limbeck.answers.groups import representatives
from limbeck.comparing import Comparer
from limbeck.config import TaskConfig
from limbeck.errors import EngineError

TASK = TaskConfig(kind="math", compare_seconds=10)  # the machine may be busy
TOWER = "9^{9^{9^{9}}}"

EQUAL = [
    ("1/2", "0.5"),
    ("2/4", "1/2"),
    (r"\frac{1}{2}", "0.5"),
    (r"\dfrac{2}{4}", r"\frac12"),
    ("1,000", "1000"),
    (r"1{,}000", "1000.00"),
    ("7/2", r"3\frac{1}{2}"),
    ("3 1/2", "3.5"),
    ("50%", "0.5"),
    (r"50\%", "1/2"),
    ("-0.25", "-1/4"),
    ("0.333333", "1/3"),
    ("0.6666667", "2/3"),
    ("5 cm", "5"),
    (r"90^\circ", "90"),
    (r"\$5", "5.00"),
    ("3 million", "3,000,000"),
    ("x = 4", "4"),
    ("x+1", "1+x"),
    ("2x", "x*2"),
    ("x^2-1", "(x-1)(x+1)"),
    ("(x+1)^2", "x^2+2x+1"),
    (r"\frac{x}{2}", r"\frac{1}{2}x"),
    (r"2\sqrt{3}", r"\sqrt{12}"),
    (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"),
    (r"\sqrt{16}", "4"),
    (r"\frac{\pi}{2}", r"0.5\pi"),
    (r"2\pi", r"\pi \cdot 2"),
    ("2^{10}", "1024"),
    ("10^3", "1000"),
    ("1.5e3", "1500"),
    (r"3 \times 10^2", "300"),
    ("2^3", "8"),
    (r"\sin(0)", "0"),
    (r"\log(1)", "0"),
    (r"\cos(\pi)", "-1"),
    ("5!", "120"),
    (r"\binom{5}{2}", "10"),
    ("(1, 2)", "(1,2)"),
    ("(1/2, 3)", "(0.5, 3)"),
    (r"(\frac{1}{2}, \sqrt{4})", "(0.5, 2)"),
    ("[0, 1/2)", "[0, 0.5)"),
    ("1, 2", "2, 1"),
    (r"\{1, 2\}", "2, 1"),
    (r"\{3\}", r"\{ 3 \}"),
    ("2 or 3", "3, 2"),
    (r"(-\infty, 1) \cup (2, \infty)", r"(-\infty,1)\cup(2,\infty)"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    (r"\text{Monday}", "monday"),
    ("No solution", r"\text{no solution}"),
    (r"\frac{3}{4}", "75%"),
    (r"2x\%", r"x \cdot 2\%"),
    ("-(-3)", "3"),
    ("+7", "7"),
    ("007", "7"),
    ("x > 3", "3 < x"),
]
DIFFERENT = [
    ("1", "2"),
    ("0.5", "0.25"),
    ("1/2", "1/3"),
    ("0.33", "1/3"),
    ("0.333333", "0.333334"),
    ("50%", "50"),
    (r"50\%", "5"),
    (r"x\%", "x"),
    (r"x\%", "x2"),
    ("-3", "3"),
    ("1000", "100"),
    ("x", "y"),
    ("x+1", "x+2"),
    ("x^2", "x^3"),
    (r"\sqrt{2}", "1.41"),
    (r"\pi", "3.14"),
    (r"\pi", "22/7"),
    (r"2\sqrt{3}", r"3\sqrt{2}"),
    ("(1, 2)", "(2, 1)"),
    ("(2, 1)", "(3, 1)"),
    ("(1, 2)", "[1, 2]"),
    ("(0, 1)", "[0, 1)"),
    ("(1, 2)", "1, 2"),
    ("(1, 2)", "(1, 2, 3)"),
    ("1, 1, 2", "1, 2, 2"),
    ("1, 2", "1"),
    (r"\{1\}", "1, 2"),
    ("on", "no"),
    ("apple", "papel"),
    ("even", "odd"),
    ("no solution", "0"),
    ("true", "false"),
    ("2^{10}", "2^{11}"),
    (r"(-\infty, 1)", r"(-\infty, 2)"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}"),
    ("5!", "5"),
    ("x > 3", "x < 3"),
]


@pytest.fixture(scope="module")
def comparer() -> Iterator[Comparer]:
    with Comparer(TASK) as opened:
        yield opened


def forms(pair: tuple[str, str]) -> tuple[str, str]:
    return normalise(pair[0], TASK), normalise(pair[1], TASK)


@pytest.mark.parametrize("pair", EQUAL, ids=" is ".join)
def test_equal_answers_are_the_same_both_ways(pair: tuple[str, str], comparer: Comparer) -> None:
    left, right = forms(pair)
    assert comparer.same(left, right)
    assert comparer.same(right, left)


@pytest.mark.parametrize("pair", DIFFERENT, ids=" is not ".join)
def test_other_answers_are_not(pair: tuple[str, str], comparer: Comparer) -> None:
    left, right = forms(pair)
    assert not comparer.same(left, right)
    assert not comparer.same(right, left)


def test_plain_numbers_and_words_need_no_process() -> None:
    with Comparer(TASK) as comparer:
        assert comparer.same("1/2", "0.5")
        assert not comparer.same("12", "13")
        assert not comparer.same("monday", "tuesday")
        assert not comparer.same("(1,2)", "(1,3)")
        assert comparer.pid is None


def test_other_kinds_know_equal_forms_alone() -> None:
    with Comparer(TaskConfig()) as comparer:
        assert comparer.same("x+1", "x+1")
        assert not comparer.same("1/2", "0.5")
        assert comparer.pid is None


def test_a_comparison_that_hangs_ends_in_time_is_counted_and_leaves_a_worker() -> None:
    with Comparer(TASK.model_copy(update={"compare_seconds": 1.0})) as comparer:
        assert comparer.same("x+1", "1+x")
        first = comparer.pid
        started = time.monotonic()
        assert not comparer.same(TOWER, "7")
        # Found by two comparisons of a second each, after which the process was replaced.
        assert time.monotonic() - started < 30
        assert comparer.same("y+1", "1+y")
        assert comparer.pid not in (None, first)
        assert not Path(f"/proc/{first}").exists()
        assert comparer.num_slow == 1


def test_a_formula_that_hangs_by_itself_is_not_asked_about_again() -> None:
    with Comparer(TASK.model_copy(update={"compare_seconds": 1.0})) as comparer:
        assert not comparer.same(TOWER, "7")
        started = time.monotonic()
        assert not any(comparer.same(TOWER, str(number)) for number in range(8, 38))
        assert time.monotonic() - started < 1.0
        assert comparer.num_slow == 31
        assert comparer.same("7", "3+4")  # the innocent one of the pair is compared on


def test_memory_has_a_limit_and_the_worker_outlives_it() -> None:
    limit = 200 << 20
    with Comparer(TASK.model_copy(update={"compare_seconds": 30.0}), memory_bytes=limit) as comparer:
        assert comparer.same("x+1", "1+x")
        assert not comparer.same("2^{10^{11}}", "x")  # 12 GB
        assert comparer.same("y+1", "1+y")
        status = Path(f"/proc/{comparer.pid}/status").read_text()
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmPeak"))
        assert peak << 10 <= limit


def test_a_worker_that_was_killed_is_replaced() -> None:
    with Comparer(TASK) as comparer:
        assert comparer.same("x+1", "1+x")
        assert comparer.pid is not None
        os.kill(comparer.pid, signal.SIGKILL)
        time.sleep(0.2)
        assert comparer.same("y+1", "1+y")
        assert comparer.num_slow == 0


def test_very_long_formulas_are_the_same_only_in_their_normal_form() -> None:
    long = "+".join(["x"] * 150)
    with Comparer(TASK) as comparer:
        assert comparer.same(long, long)
        assert not comparer.same(long, "150x")
        assert comparer.pid is None


def test_a_worker_that_cannot_start_is_an_error() -> None:
    with (
        Comparer(TASK, memory_bytes=20 << 20) as comparer,
        pytest.raises(EngineError, match=r"the process that compares formulas does not start.*math-verify"),
    ):
        comparer.same("x+1", "1+x")


def test_the_most_frequent_form_stands_for_its_group() -> None:
    given = ["0.5", "1/2", "x+1", "1/2", None, "1+x", "50%", "7"]
    with Comparer(TASK) as comparer:
        stands = representatives(given, comparer.same)
    assert stands == {
        "1/2": "1/2",
        "0.5": "1/2",
        "50%": "1/2",
        "x+1": "x+1",
        "1+x": "x+1",
        "7": "7",
    }


def test_what_is_given_first_stands_for_its_group_whatever_its_number() -> None:
    with Comparer(TASK) as comparer:
        assert representatives(["1/2", "1/2"], comparer.same, first="0.5") == {"0.5": "0.5", "1/2": "0.5"}


def test_an_answer_joins_the_first_group_that_it_fits_and_no_two() -> None:
    near = {("a", "b"), ("b", "c")}
    same = lambda left, right: left == right or bool({(left, right), (right, left)} & near)  # noqa: E731
    assert representatives("aabbc", same) == {"a": "a", "b": "a", "c": "c"}
