"""Shards in `status`: their rows, their rate, and which of them is far behind, on a store in memory."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest

from limbeck.lease import LEASE, Lease
from limbeck.shards import WHOLE, Shard
from limbeck.status import inspect
from limbeck.status_text import text
from tests.memory_store import MemoryStore

ROOT = "s3://test/work/generate/0123456789abcdef"


class At(NamedTuple):
    """How far a shard has come."""

    done: int
    state: str = "held"
    age_seconds: float = 0.0
    expected: int | None = 100


def with_leases(count: int, found: dict[int, At]) -> MemoryStore:
    store = MemoryStore()
    store.put(f"{ROOT}/part-00000-10-{'0' * 64}.parquet", b"x", timedelta(minutes=5))
    for index, at in found.items():
        lease = Lease.model_validate(
            {
                "name": f"generate(teacher {index + 1}/{count})",
                "state": at.state,
                "rows_done": at.done,
                "rows_total": at.expected,
                "rows_per_second": 2.5,
            }
        )
        place = Shard(index=index, count=count).place(ROOT)
        store.put(f"{place}/{LEASE}", lease.model_dump_json().encode(), timedelta(seconds=at.age_seconds))
    return store


TABLE = {
    "all alike": ({0: At(50), 1: At(60), 2: At(55)}, []),
    "one at half of the median": ({0: At(50), 1: At(50), 2: At(25)}, []),
    "one below half of it": ({0: At(50), 1: At(50), 2: At(24)}, [2]),
    "one whose attempt is over": ({0: At(90), 1: At(90), 2: At(10, age_seconds=99)}, [2]),
    "nothing says much yet": ({0: At(9), 1: At(9), 2: At(0)}, []),
    "one that has not begun": ({0: At(90), 1: At(90)}, []),
    "a share counts, not rows": ({0: At(90), 1: At(90), 2: At(9, expected=10)}, []),
    "the others are complete": ({0: At(100, "finished"), 1: At(100, "finished"), 2: At(40)}, [2]),
    "a complete one never is": ({0: At(90), 1: At(90), 2: At(0, "finished", expected=0)}, []),
    "one that has not told": ({0: At(90), 1: At(90), 2: At(0, expected=None)}, []),
}


@pytest.mark.parametrize("what", TABLE)
def test_a_shard_far_behind_the_median_of_the_others_straggles(what: str) -> None:
    found, stragglers = TABLE[what]
    (state,) = inspect(with_leases(3, found), "s3://test/work").stages
    assert [shard.index for shard in state.shards if shard.straggles] == stragglers
    assert [shard.count for shard in state.shards] == [3, 3, 3]


def test_the_page_has_a_line_for_each_shard_with_rows_and_rate() -> None:
    found = {0: At(50), 1: At(100, "finished"), 2: At(10, age_seconds=99)}
    store = with_leases(4, found)
    page = text(inspect(store, "s3://test/work"), None, datetime(2026, 1, 1, tzinfo=UTC)).splitlines()
    shown = [line.strip() for line in page if "/4 " in line or "4 shards" in line]
    assert shown == [
        "4 shards: 1 at work, 1 complete, 1 stopped, 1 waiting; 160 rows, 2.5/s",
        "1/4 at work: 50 of 100 rows, 2.5/s",
        "2/4 complete: 100 of 100 rows",
        "3/4 stopped: 10 of 100 rows, far behind the others",
        "4/4 waiting",
    ]


def test_of_many_shards_those_far_behind_alone_have_a_line() -> None:
    store = with_leases(40, {index: At(1 if index == 7 else 80) for index in range(40)})
    page = text(inspect(store, "s3://test/work"), None, datetime(2026, 1, 1, tzinfo=UTC))
    assert [line.split()[0] for line in page.splitlines() if "/40 " in line] == ["8/40"]
    assert "40 shards: 40 at work; 3,121 of 4,000 rows, 100.0/s" in page


def test_the_number_of_shards_that_was_begun_last_is_shown() -> None:
    store = with_leases(2, {0: At(10, "released", 500), 1: At(20, "released", 500)})
    lease = Lease(rows_done=40, rows_total=300, rows_per_second=1.5)
    store.put(f"{WHOLE.place(ROOT)}/{LEASE}", lease.model_dump_json().encode())
    (state,) = inspect(store, "s3://test/work").stages
    assert [(shard.count, shard.rows, shard.expected) for shard in state.shards] == [(1, 40, 300)]
    page = text(inspect(store, "s3://test/work"), None, datetime(2026, 1, 1, tzinfo=UTC))
    assert "40 of 300 rows, 1.5/s" in page
