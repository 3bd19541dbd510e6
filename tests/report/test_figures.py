"""Figures as people read them."""

from limbeck.report import figures


def test_shares_and_differences() -> None:
    assert figures.percent(0.5894) == "58.9%"
    assert figures.points(-0.0421) == "-4.2"
    assert figures.points(0.1) == "+10.0"
    assert figures.interval((0.5, 0.625)) == "50.0 to 62.5"
    assert figures.interval((-0.01, 0.02), signed=True) == "-1.0 to +2.0"


def test_a_dash_stands_for_what_was_not_measured() -> None:
    absent = (figures.percent(None), figures.points(None), figures.interval(None), figures.number(None))
    assert absent == ("—",) * 4


def test_numbers_and_times() -> None:
    assert figures.number(0.12345) == "0.123"
    assert figures.number(2.0, 1) == "2.0"
    assert figures.count(12345) == "12,345"
    assert figures.temperature(None) == "all"
    assert figures.temperature(0.70) == "0.7"
    times = [figures.duration(seconds) for seconds in (0.44, 9.99, 12.4, 59.7, 185, 7800)]
    assert times == ["0.4 s", "10.0 s", "12 s", "1 min 00 s", "3 min 05 s", "2 h 10 min"]
