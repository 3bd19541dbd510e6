"""Turns at a rate, on a clock of the test's own."""

import pytest

from limbeck.pace import Pace


class Clock:
    """Stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_requests_are_spread_evenly_and_the_first_waits_for_nothing(clock: Clock) -> None:
    pace = Pace(30, None, clock)
    assert [pace.take(10**9) for _ in range(4)] == [0, 2, 4, 6]


def test_a_pause_saves_no_turns_up(clock: Clock) -> None:
    pace = Pace(30, None, clock)
    pace.take(1)
    clock.now += 60
    assert [pace.take(1) for _ in range(3)] == [0, 2, 4]


def test_tokens_are_spread_by_what_each_request_may_use(clock: Clock) -> None:
    pace = Pace(None, 600, clock)
    assert [pace.take(tokens) for tokens in (20, 50, 10, 10)] == [0, 2, 7, 8]


def test_tokens_that_were_not_used_come_back_and_those_on_top_are_taken(clock: Clock) -> None:
    pace = Pace(None, 600, clock)
    pace.take(100)
    pace.give_back(80)
    assert pace.take(10) == 2
    pace.give_back(-30)
    assert pace.take(0) == 6


def test_the_slower_of_both_limits_holds(clock: Clock) -> None:
    pace = Pace(60, 600, clock)
    assert [pace.take(5), pace.take(50), pace.take(5)] == [0, 1, 6]


def test_a_server_that_asks_for_a_pause_gets_it_from_all(clock: Clock) -> None:
    pace = Pace(60, None, clock)
    pace.take(1)
    pace.hold(30)
    assert [pace.take(1), pace.take(1)] == [30, 31]
    pace.hold(0)
    assert pace.take(1) == 32


def test_without_limits_nobody_waits(clock: Clock) -> None:
    pace = Pace(None, None, clock)
    assert [pace.take(10**6) for _ in range(5)] == [0] * 5
