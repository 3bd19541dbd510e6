"""The rule that stops PPO, on scripted histories."""

import math

import pytest

from limbeck.hacking import Probe, hacked, probes, proxy_length_correlation

# agreement, proxy, length
Course = list[tuple[float, float, float]]


def course(*values: tuple[float, float, float]) -> list[Probe]:
    return [Probe(10 * number, *item) for number, item in enumerate(values)]


@pytest.mark.parametrize(
    ("name", "measured", "stops"),
    [
        ("the first measurement says nothing", [(0.5, 0.5, 20)], False),
        ("both rise", [(0.5, 0.5, 20), (0.7, 0.8, 22)], False),
        ("both fall: the policy broke, nobody is fooled", [(0.5, 0.5, 20), (0.2, 0.4, 5)], False),
        ("agreement falls by less than the drop", [(0.5, 0.5, 20), (0.41, 0.9, 40)], False),
        ("the proxy rises while agreement falls", [(0.5, 0.5, 20), (0.39, 0.6, 40)], True),
        (
            "learnt first, then lost again, still above the start",
            [(0.3, 0.4, 20), (0.8, 0.6, 20), (0.5, 0.9, 60)],
            True,
        ),
        ("lost again, but less liked too", [(0.3, 0.4, 20), (0.8, 0.6, 20), (0.5, 0.55, 60)], False),
        ("back after a dip", [(0.5, 0.5, 20), (0.35, 0.5, 30), (0.5, 0.7, 20)], False),
        ("length alone stops nothing", [(0.5, 0.5, 20), (0.5, 0.9, 200)], False),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_rule(name: str, measured: Course, stops: bool) -> None:
    assert bool(hacked(course(*measured), drop=0.1)) is stops


def test_the_message_tells_all_three() -> None:
    said = hacked(course((0.5, 0.5, 20.0), (0.3, 0.75, 41.0)), drop=0.1)
    assert said == (
        "since update 0 the proxy reward rose from 0.500 to 0.750 while agreement fell from 0.500 to 0.300; "
        "length went from 20.0 to 41.0 tokens"
    )


def test_probes_are_the_rounds_that_were_measured() -> None:
    measured = {"ppo/validation_agreement": 0.5, "ppo/validation_proxy": 0.6, "ppo/validation_length": 7.0}
    history = [{"update": 0.0, **measured}, {"update": 1.0, "ppo/score": 0.1}, {"update": 2.0, **measured}]
    assert probes(history) == [Probe(0, 0.5, 0.6, 7.0), Probe(2, 0.5, 0.6, 7.0)]


def test_where_nothing_can_agree_the_proxy_and_length_are_measured_and_nothing_is_called_hacking() -> None:
    history = [
        {"update": float(n), "ppo/validation_proxy": 0.1 * n, "ppo/validation_length": 10.0 * n}
        for n in range(4)
    ]
    measured = probes(history)
    assert [item.agreement for item in measured] == [None] * 4
    assert hacked(measured, drop=0.0) is None
    assert proxy_length_correlation(measured) == pytest.approx(1)


def test_a_reward_that_is_bought_with_length_correlates_with_it() -> None:
    assert proxy_length_correlation(course((0.5, 0.1, 10), (0.5, 0.2, 20), (0.5, 0.3, 30))) == pytest.approx(
        1
    )
    assert proxy_length_correlation(course((0.5, 0.3, 10), (0.5, 0.2, 20), (0.5, 0.1, 30))) == pytest.approx(
        -1
    )
    assert math.isnan(proxy_length_correlation(course((0.5, 0.1, 10), (0.5, 0.2, 20))))
