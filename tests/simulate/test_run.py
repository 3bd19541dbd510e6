"""The simulation against what can be worked out by hand."""

import gc
import math
from dataclasses import replace

import pytest

from simulate.requests import Requests
from simulate.run import CLOCK_SECONDS, simulate
from simulate.scenario import Protocol, Scenario
from simulate.shelf import Shelf

SMALL = Scenario(
    protocol=Protocol(rows_per_part=2000, commit_seconds=60, lease_seconds=60, num_shards=32),
    num_rows=409_600,
    num_gpus=32,
    preemption_seconds=math.inf,
)
"""Each shard has eight parts of 1,600 rows."""


def test_without_preemptions_a_run_takes_its_rows_its_start_and_the_last_sequences() -> None:
    made = simulate(SMALL)
    gets = math.ceil(SMALL.model_bytes / 2**23)
    download = max(SMALL.model_bytes / SMALL.node_bytes_per_second, 32 * gets / SMALL.model_gets_per_second)
    start = SMALL.pod_seconds + SMALL.reading_seconds + download + SMALL.engine_seconds
    assert made.seconds == pytest.approx(start + SMALL.ideal_seconds + SMALL.lag_seconds)
    assert made.spent["sampling"] == pytest.approx(32 * (SMALL.ideal_seconds + SMALL.lag_seconds))
    assert (made.num_attempts, made.num_preempted, made.lost_rows, made.wasted_share) == (32, 0, 0, 0)


def test_all_gpu_time_is_told() -> None:
    made = simulate(replace(SMALL, preemption_seconds=1200))
    asked = made.traffic.total("results")
    gc.collect()  # what was still waiting when the run ended adds nothing
    assert sum(made.spent.values()) == pytest.approx(made.seconds * SMALL.num_gpus)
    assert min(made.spent.values()) >= 0
    assert made.traffic.total("results") == asked


def test_the_same_seed_gives_the_same_run_and_another_one_another() -> None:
    first, second = (simulate(replace(SMALL, preemption_seconds=1200)) for _ in range(2))
    other = simulate(replace(SMALL, preemption_seconds=1200, seed=2))
    assert first.seconds == second.seconds != other.seconds
    assert first.traffic.total("results") == second.traffic.total("results")


@pytest.mark.parametrize("commit_seconds", [20, 60, 120])
def test_a_kill_loses_half_an_interval_of_finished_rows_and_half_of_what_is_in_flight(
    commit_seconds: float,
) -> None:
    """Few parts are whole in between; starts take no time, so every kill meets sampling."""
    scenario = replace(
        SMALL,
        protocol=Protocol(10**6, commit_seconds, lease_seconds=9, num_shards=32),
        num_rows=8_000_000,
        preemption_seconds=1800.0,
        pod_seconds=0.0,
        prompt_seconds=0.0,
        engine_seconds=0.0,
        model_bytes=1,
        replace_seconds=0.0,
        retry_seconds=0.0,
    )
    made = simulate(scenario)
    assert made.num_preempted > 300
    rows = made.lost_rows / made.num_preempted
    assert rows == pytest.approx(commit_seconds / 2 * scenario.rows_per_second, rel=0.1)
    tokens = made.lost_tokens / made.num_preempted
    assert tokens == pytest.approx(scenario.in_flight / 2 * scenario.tokens_per_row, rel=0.05)


def test_a_retry_waits_for_what_is_left_of_the_lease() -> None:
    """The last renewal was up to a third of a lease before the kill: a sixth on average."""
    lease, pause = 600.0, 30.0
    scenario = replace(
        SMALL,
        protocol=replace(SMALL.protocol, lease_seconds=lease),
        num_rows=2_000_000,
        preemption_seconds=1800.0,
        replace_seconds=0.0,
        retry_seconds=pause,
        num_retries=0,  # so that each pause is the first
    )
    made = simulate(scenario)
    assert len(made.lease_seconds) > 100
    mean = sum(made.lease_seconds) / len(made.lease_seconds)
    assert mean == pytest.approx(lease * 5 / 6 + CLOCK_SECONDS - pause - scenario.pod_seconds, rel=0.1)
    assert max(made.lease_seconds) <= lease + CLOCK_SECONDS - pause - scenario.pod_seconds


def test_gpus_are_taken_away_as_often_as_was_said() -> None:
    made = simulate(replace(SMALL, preemption_seconds=1800, num_rows=4_000_000))
    working = made.seconds * SMALL.num_gpus - made.spent["away"] - made.spent["idle"]
    assert made.num_preempted == pytest.approx(working / 1800, rel=0.15)


def test_a_task_that_is_killed_too_often_is_out_of_retries() -> None:
    scenario = replace(SMALL, num_gpus=1, protocol=replace(SMALL.protocol, num_shards=1), num_rows=2000)
    lives = [1000.0 * 2**number for number in range(7)]
    early = replace(scenario, pod_seconds=1e6, retry_seconds=0.0, replace_seconds=0.0)
    assert simulate(early, lives[:5]).num_exhausted == 0
    assert simulate(early, lives[:6]).num_exhausted == 1


def test_requests_of_an_unbroken_run_follow_from_its_parts_and_seconds() -> None:
    scenario = replace(SMALL, num_gpus=1, protocol=replace(SMALL.protocol, num_shards=1), num_rows=10_000)
    made = simulate(scenario)
    parts = 50  # of 200 rows
    loose = math.floor((scenario.ideal_seconds + scenario.lag_seconds) / 60)
    asked = made.traffic.total("results")
    assert asked.pages == 2
    assert asked.get == 1  # the lease
    assert asked.head == pytest.approx(1 + parts + loose, abs=5)
    assert asked.put == pytest.approx(1 + parts + loose + 2 + made.num_renewals, abs=5)
    assert asked.post == pytest.approx(loose, abs=5)  # each is deleted with the part that it is of
    held = made.seconds - scenario.pod_seconds
    assert made.num_renewals == math.floor(held / 20) + 1


def test_the_model_never_comes_faster_than_the_store_serves_it() -> None:
    protocol = replace(SMALL.protocol, num_shards=400)
    made = simulate(replace(SMALL, num_gpus=400, protocol=protocol, num_rows=1_600_000))
    gets = made.traffic.total("model").get
    assert gets == 400 * math.ceil(SMALL.model_bytes / 2**23)
    assert made.traffic.reads_per_second("model") <= SMALL.model_gets_per_second * 1.05
    assert made.spent["download"] / 400 > gets / SMALL.model_gets_per_second / 2


def test_a_shelf_keeps_what_is_stored_and_loses_the_rest() -> None:
    shelf = Shelf(num_rows=50, rows_per_part=20)
    assert shelf.save(12) == 12
    assert shelf.save(18) == 6
    assert shelf.lose(19) == 1
    assert (shelf.finished, len(shelf.loose), shelf.boundary) == (18, 2, 20)
    assert shelf.close() == (20, 2)
    assert shelf.save(33) == 13
    assert shelf.close() == (20, 1)
    assert shelf.lose(40) == 0
    assert shelf.close() == (10, 0)
    assert shelf.is_whole
    assert (shelf.num_parts, shelf.loose) == (3, [])


def test_requests_are_counted_by_place_and_at_their_peak() -> None:
    made = simulate(SMALL)
    assert made.traffic.total("prompts") == Requests(get=32, pages=32)
    assert made.traffic.writes_per_second("prompts") == 0
    assert 0 < made.traffic.writes_per_second("results") < 40


@pytest.mark.parametrize(
    ("num_rows", "num_shards", "sizes"),
    [
        (1000, 2, [600, 400]),
        (990, 2, [590, 400]),
        (150, 3, [150, 0, 0]),
        (409_600, 3, [86 * 1600, 85 * 1600, 85 * 1600]),
    ],
    ids=["five parts of 200", "the last one smaller", "one part", "256 parts"],
)
def test_rows_are_dealt_out_part_by_part(num_rows: int, num_shards: int, sizes: list[int]) -> None:
    protocol = replace(SMALL.protocol, num_shards=num_shards)
    assert replace(SMALL, num_rows=num_rows, protocol=protocol).rows_of_shards == sizes


def test_a_shard_without_rows_loads_no_model() -> None:
    protocol = replace(SMALL.protocol, num_shards=3)
    made = simulate(replace(SMALL, num_rows=150, num_gpus=3, protocol=protocol))
    assert made.num_attempts == 3
    assert made.traffic.total("model").get == math.ceil(SMALL.model_bytes / 2**23)
