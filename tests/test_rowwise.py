"""The loop of the stages that ask a model for rows, on a real store; its stages are in tests/stages."""

from collections.abc import Callable, Sequence

import pytest

from limbeck import lease
from limbeck.config import parse_config
from limbeck.errors import LeaseError
from limbeck.lease import Held, Lease
from limbeck.records import Judgement
from limbeck.rowwise import make_rows
from limbeck.sampling import Sample, SampleRequest
from limbeck.storage import Store
from limbeck.work import Made, Question, Task, ToPrompt, Work
from tests.fakes import ScriptedSampler

ROWS_PER_PART, NUM_PARTS = 5, 20


def plan(part: int, to_prompt: ToPrompt) -> list[Task[Judgement]]:
    """The rows of one part: number N has the seed N."""

    def task(number: int) -> Task[Judgement]:
        def row(samples: Sequence[Sample]) -> Judgement:
            (sample,) = samples
            return Judgement(completion_id=sample.text, prompt_id=str(number), p_correct=0.5)

        return Task(str(number), Question([SampleRequest(to_prompt("p"), 1.0, 8, seed=number)], row), "p")

    return [task(number) for number in range(part * ROWS_PER_PART, (part + 1) * ROWS_PER_PART)]


WORK = Work(
    name="test",
    unit="rows",
    row_type=Judgement,
    sizes=dict.fromkeys(range(NUM_PARTS), ROWS_PER_PART),
    plan=plan,
    place=lambda row: (int(row.prompt_id) // ROWS_PER_PART, row.prompt_id),
)


def make(answer: Callable[[int], str], store: Store, uri: str, held: Held) -> Made:
    config = parse_config({"generate": {"commit_seconds": 1e-9}})
    sampler = ScriptedSampler(lambda _, seed: answer(seed or 0))
    return make_rows(WORK, lambda: sampler, config, store, uri, held)


def test_an_attempt_that_has_lost_its_lease_stores_nothing_more(store: Store, work_uri: str) -> None:
    before: list[str] = []

    def loses(number: int) -> str:
        """At the fortieth row or so another attempt takes the lease, and this one comes to know it."""
        if number == 40:
            thief = Lease(name="thief", token="y")
            store.write_bytes(f"{work_uri}/{lease.LEASE}", thief.model_dump_json().encode())
            with pytest.raises(LeaseError):
                held.confirm()
            before.extend(store.sizes(work_uri))
        return "="

    with (
        lease.held(store, work_uri, "test", 600) as held,
        pytest.raises(LeaseError, match=r"test lost its lease .* got thief"),
    ):
        make(loses, store, work_uri, held)
    assert any("/part-" in uri for uri in before)
    assert list(store.sizes(work_uri)) == before
