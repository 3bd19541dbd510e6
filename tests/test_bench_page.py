"""The page of `make bench`: medians, spreads, and what missed its goal."""

from bench.measured import Comparison, Growth, Limit, Measured, Pair, in_turns
from bench.page import page


def comparison(**changed: object) -> Comparison:
    """One with ratios 0.5, 2.0, 1.0."""
    pairs = tuple(Pair(ours=ours, theirs=10.0) for ours in (5.0, 20.0, 10.0))
    given = {"what": "w", "against": "a", "model": "demo", "unit": "s", "goal": 1.0, "goal_is": "at least"}
    return Comparison.model_validate({**given, "pairs": pairs, **changed})


def test_a_ratio_is_the_median_of_the_pairs() -> None:
    assert comparison().ratio == 1.0
    assert comparison().met
    assert not comparison(goal=1.01).met
    assert comparison(goal=1.01, goal_is="at most").met


def test_both_sides_take_turns_and_the_first_round_is_not_counted() -> None:
    order: list[str] = []

    def side(name: str) -> float:
        order.append(name)
        return float(len(order))

    pairs = in_turns(lambda: side("ours"), lambda: side("theirs"), rounds=2)
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert pairs == (Pair(ours=4, theirs=3), Pair(ours=5, theirs=6))


def test_the_page_shows_misses_and_where_each_figure_came_from() -> None:
    measured = Measured(
        command="python -m bench.x",
        commit="abc",
        machine="cpu",
        comparisons=(comparison(), comparison(goal=3.0, note="said")),
        limits=(Limit(what="help", unit="s", limit=0.5, values=(0.4, 0.9, 0.3)),),
        growths=(
            Growth(what="label", model="none", size="rows", unit="rows/s", points=((1, 2), (10, 2000))),
        ),
    )
    text = page([measured])
    assert "| 1.00 (0.50 to 2.00, 3 rounds) | at least 1 | yes |" in text
    assert "| at least 3 | **no** |" in text
    assert "| help | 0.4 s (0.3 to 0.9) | 0.5 s | yes |" in text
    assert "| rows/s | 2 | 2,000 |" in text
    assert "- w: said" in text
    assert "`python -m bench.x`, abc" in text
