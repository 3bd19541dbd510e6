"""Figures as people read them. A dash stands for what was not measured."""

from limbeck.intervals import Interval

DASH = "—"


def percent(share: float | None) -> str:
    """A share from 0 to 1 as `58.9%`."""
    return DASH if share is None else f"{share:.1%}"


def points(difference: float | None) -> str:
    """A difference of shares in percentage points, with its sign: `+4.2`."""
    return DASH if difference is None else f"{100 * difference:+.1f}"


def interval(bounds: Interval | None, *, signed: bool = False) -> str:
    """Both bounds in percent or, signed, in percentage points: `55.1 to 61.2`."""
    if bounds is None:
        return DASH
    low, high = (f"{100 * bound:+.1f}" if signed else f"{100 * bound:.1f}" for bound in bounds)
    return f"{low} to {high}"


def number(value: float | None, digits: int = 3) -> str:
    """A plain number with so many decimals."""
    return DASH if value is None else f"{value:.{digits}f}"


def tokens(bounds: Interval | None) -> str:
    """Both bounds of a mean number of tokens: `41.2 to 44.0`."""
    return DASH if bounds is None else f"{bounds[0]:.1f} to {bounds[1]:.1f}"


def money(value: float | None) -> str:
    """A small sum with three significant digits: `0.00041`."""
    return DASH if value is None else f"{value:.3g}"


def count(value: int) -> str:
    """A count with thousands commas."""
    return f"{value:,}"


def tally(value: int | None) -> str:
    """A count that may not be known."""
    return DASH if value is None else count(value)


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 05 s` or `2 h 10 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def span(seconds: float | None) -> str:
    """A duration that may not be known."""
    return DASH if seconds is None else duration(seconds)


def temperature(value: float | None) -> str:
    """A temperature, or `all`."""
    return "all" if value is None else f"{value:g}"
