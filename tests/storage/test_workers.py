"""Parts of large files, moved by many threads: in order, all of them, and in bounded memory."""

import threading
import time

import pytest

from limbeck.storage.workers import MAX_PARTS, MEMORY_BYTES, PART_BYTES, Part, Workers, parts_of

PATIENCE_SECONDS = 30.0


@pytest.mark.parametrize("num_bytes", [1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES, 200 << 30])
def test_parts_cover_a_file_once_and_no_store_gets_more_than_it_takes(num_bytes: int) -> None:
    parts = parts_of(num_bytes)
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert len(parts) <= MAX_PARTS
    ends = [part.first + part.num_bytes for part in parts]
    assert [part.first for part in parts] == [0, *ends[:-1]]
    assert ends[-1] == num_bytes


def test_results_come_in_order_and_a_slow_part_lets_no_more_wait_than_memory_holds() -> None:
    room, lock = MEMORY_BYTES // PART_BYTES, threading.Lock()
    begun, found, begun_meanwhile = 0, list[int](), 0

    def work(part: Part) -> int:
        nonlocal begun, begun_meanwhile
        with lock:
            begun += 1
        if part.number == 1:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while begun < room and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.1)  # one more would begin now
            begun_meanwhile = begun
        return part.number

    with Workers() as workers:
        parts = parts_of(3 * room * PART_BYTES)
        # In a thread that may hang without the test.
        taker = threading.Thread(target=lambda: found.extend(workers.in_order(work, parts)), daemon=True)
        taker.start()
        taker.join(2 * PATIENCE_SECONDS)
    assert begun_meanwhile == room
    assert found == [part.number for part in parts]
