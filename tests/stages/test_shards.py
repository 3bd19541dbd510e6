"""Shards of generate, judge and evaluate: the same whole for every number, which may change on the way."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest

from limbeck.config import Config
from limbeck.errors import DataError, LeaseError
from limbeck.judged_answers import Judge
from limbeck.lease import LEASE, Held, Lease, held
from limbeck.manifest import Manifest, find
from limbeck.records import EvalResult
from limbeck.rows import read_rows
from limbeck.shards import WHOLE, Shard
from limbeck.stages import evaluate, generate, judge
from limbeck.stages.prepare import Prepared
from limbeck.storage import Store
from tests.fakes import ScriptedSampler
from tests.stages.conftest import ConfigFor

SETTINGS: dict[str, Any] = {
    "generate": {
        "teacher": {"samples_per_prompt": 5, "max_tokens": 20},
        "rows_per_part": 20,
        "max_bad_fraction": 0.2,
    },
    "engine": {"max_model_len": 100},
    "evaluate": {"samples_per_prompt": 3, "max_tokens": 8},
    "judge": {"template": "{prompt}{completion}"},
}
OPEN: dict[str, Any] = {
    "task": {"kind": "open"},
    "label": {"rule": "judge"},
    "judge": {"open_template": "{prompt}{completion}"},
}
STAGES = ("generate", "judge", "evaluate", "evaluate open")


class Run:
    """One stage, with a scripted engine that counts what it is asked."""

    def __init__(
        self, stage: str, prepared: Prepared, config_for: ConfigFor, store: Store, uri: str, **settings: Any
    ) -> None:
        self.stage, self.prepared, self.store, self.uri = stage, prepared, store, uri
        self.config: Config = config_for(**SETTINGS | (OPEN if stage == "evaluate open" else {}) | settings)
        self.samplers: list[ScriptedSampler] = []
        if stage == "judge":
            self.completions = generate.run(
                prepared.prompts,
                "m",
                lambda: ScriptedSampler(answer),
                self.config,
                store,
                uri,
                role="teacher",
            )

    def shard(self, shard: Shard, die_after: int | None = None) -> Manifest:
        """One shard, or the whole."""

        def engine(script: Callable[[str, int | None], str]) -> Callable[[], ScriptedSampler]:
            def load() -> ScriptedSampler:
                self.samplers.append(ScriptedSampler(script, die_after=die_after))
                return self.samplers[-1]

            return load

        data, config, store, uri = self.prepared, self.config, self.store, self.uri
        model = "m", engine(answer), config, store, uri
        if self.stage == "generate":
            return generate.run(data.prompts, *model, role="teacher", shard=shard)
        if self.stage == "judge":
            asking = "t", engine(verdict), config, store, uri
            return judge.run(data.prompts, self.completions, *asking, shard=shard)
        judging = Judge("t", engine(verdict))
        return evaluate.run(data.heldout, data.gold, *model, name="x", judge=judging, shard=shard)

    def merged(self, shards: Sequence[Manifest]) -> Manifest:
        if self.stage == "generate":
            return generate.merged(shards, self.config, self.store)
        if self.stage == "judge":
            return judge.merged(shards, self.store)
        return evaluate.merged(shards, self.config, self.store)

    def all(self, count: int) -> Manifest:
        return self.merged([self.shard(shard) for shard in of(count)])

    @property
    def num_answers(self) -> int:
        """Of all engines so far."""
        return sum(len(sampler.answered) for sampler in self.samplers)


def of(count: int) -> list[Shard]:
    return [Shard(index=index, count=count) for index in range(count)]


def answer(prompt: str, seed: int | None) -> str:
    return f"{prompt} {seed} = {(seed or 0) % 7}"


def verdict(prompt: str, seed: int | None) -> str:
    return "yes" if len(prompt) % 2 else "no"


@pytest.fixture
def started(prepared: Prepared, config_for: ConfigFor, store: Store, work_uri: str) -> Callable[..., Run]:
    def start(stage: str, place: str = "", **settings: Any) -> Run:
        return Run(stage, prepared, config_for, store, f"{work_uri}{place}", **settings)

    return start


@pytest.mark.parametrize("stage", STAGES)
def test_the_whole_is_the_same_for_every_number_of_shards(started: Callable[..., Run], stage: str) -> None:
    alone = started(stage, "/alone")
    whole = alone.all(1)
    assert whole.num_rows > 0
    for count in (3, 20):  # more shards than parts: some have nothing to do
        run = started(stage, f"/{count}")
        made = run.all(count)
        assert made.content_hash == whole.content_hash
        same = (
            "num_rows",
            "num_input_rows",
            "rejected",
            "metrics",
            "inputs",
            "config_hash",
            "num_gpus",
            "shard",
        )
        assert [getattr(made, name) for name in same] == [getattr(whole, name) for name in same]
        assert run.num_answers == alone.num_answers > 30
        assert find(run.store, made.uri) == made
    assert whole.shard is None


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_goes_on_with_another_number_of_shards_and_asks_for_nothing_twice(
    started: Callable[..., Run], stage: str, store: Store
) -> None:
    row_by_row = {"generate": SETTINGS["generate"] | {"commit_seconds": 1e-9}}
    alone, run = started(stage, "/alone"), started(stage, **row_by_row)
    whole = alone.all(1)
    first, second = of(2)
    with pytest.raises(KeyboardInterrupt):
        run.shard(first, die_after=5)
    run.shard(second)
    for shard in (of(3)[0], WHOLE):
        with pytest.raises(KeyboardInterrupt):
            run.shard(shard, die_after=1)
    made = run.all(3)
    assert run.num_answers == alone.num_answers > 30
    assert made.content_hash == whole.content_hash
    assert not [uri for uri in store.sizes(made.uri) if "/loose-" in uri]
    # What is complete is so for every number, also for one that has never been there.
    assert run.shard(of(4)[3]) == run.all(5) == run.shard(WHOLE) == made
    assert run.num_answers == alone.num_answers


def test_a_merge_deletes_the_loose_rows_that_another_number_of_shards_has_left(
    started: Callable[..., Run], store: Store
) -> None:
    run = started("generate", generate=SETTINGS["generate"] | {"commit_seconds": 1e-9})
    with pytest.raises(KeyboardInterrupt):
        run.shard(of(2)[0], die_after=3)
    run.config = run.config.model_copy(update={"generate": started("generate").config.generate})
    shards = [run.shard(shard) for shard in of(3)]
    left = [uri for uri in store.sizes(run.uri) if "/shards/0-of-2/loose-" in uri]
    assert left
    made = run.merged(shards)
    assert set(left).isdisjoint(store.sizes(made.uri))


def test_an_attempt_with_another_number_of_shards_is_refused_while_one_is_at_work(
    store: Store, work_uri: str
) -> None:
    with held(store, work_uri, "old", shard=of(2)[0]), held(store, work_uri, "old", shard=of(2)[1]):
        for other in (of(3)[1], WHOLE):
            with (
                pytest.raises(LeaseError, match="another attempt of the same stage is at work"),
                held(store, work_uri, "new", shard=other),
            ):
                pass
    with (
        held(store, work_uri, "old"),
        pytest.raises(LeaseError, match="another attempt of the same stage is at work"),
        held(store, work_uri, "new", shard=of(2)[0]),
    ):
        pass
    with held(store, work_uri, "new", shard=of(3)[1]):
        pass


@pytest.mark.parametrize(("stale", "new"), [(of(2)[1], of(3)[0]), (WHOLE, of(2)[0]), (of(2)[1], WHOLE)])
def test_an_attempt_that_seemed_dead_finds_its_lease_gone(
    store: Store, work_uri: str, stale: Shard, new: Shard
) -> None:
    lease, place = Lease(token="x", name="stale", ttl_seconds=1.0), stale.place(work_uri)
    etag = store.write_new(f"{place}/{LEASE}", lease.model_dump_json().encode())
    assert etag
    old = Held(store, place, lease, etag)
    old.confirm()
    with held(store, work_uri, "new", shard=new) as mine:
        with pytest.raises(LeaseError, match="stale lost its lease"):
            old.confirm()
        mine.confirm()


class Misfit(NamedTuple):
    """What is done to three shards, and what is said of it."""

    change: Callable[[list[Manifest]], list[Manifest]]
    says: str


def without_a_part(shards: list[Manifest]) -> list[Manifest]:
    return [shards[0].model_copy(update={"objects": shards[0].objects[1:]}), *shards[1:]]


def of_a_sibling(shards: list[Manifest]) -> list[Manifest]:
    return [shards[0].model_copy(update={"objects": shards[1].objects}), *shards[1:]]


MISFITS = {
    "none": Misfit(lambda shards: [], "no shards"),
    "one is missing": Misfit(
        lambda shards: shards[1:], "not each shard once.*0 to 2 of 3, got 1 of 3, 2 of 3"
    ),
    "one is there twice": Misfit(lambda shards: [*shards, shards[0]], "not each shard once"),
    "other prompts": Misfit(
        lambda shards: [*shards[1:], shards[0].model_copy(update={"inputs": {}})], "shards of another inputs"
    ),
    "a part is missing": Misfit(without_a_part, "a part that is not there once.*part 0"),
    "the parts of a sibling": Misfit(of_a_sibling, "shard 0 of 3 lists others.*part 1"),
}


def test_shards_that_do_not_belong_together_are_not_merged(started: Callable[..., Run], store: Store) -> None:
    run = started("generate")
    shards = [run.shard(shard) for shard in of(3)]
    more = run.shard(of(3)[0]).model_copy(update={"shard": shards[0].shard.model_copy(update={"count": 2})})  # type: ignore[union-attr]
    table = MISFITS | {"another number": Misfit(lambda shards: [more, *shards[1:]], "not each shard once")}
    for what, (change, says) in table.items():
        with pytest.raises(DataError, match=says):
            run.merged(change(shards))
        assert find(store, shards[0].uri) is None, what
    assert run.merged(shards).num_rows == 160


def test_too_many_rows_set_aside_stop_the_merge_and_no_shard(
    prepared: Prepared, config_for: ConfigFor, store: Store, work_uri: str
) -> None:
    config = config_for(**SETTINGS | {"engine": {"max_model_len": 25}})  # two digits do not fit
    shards = [
        generate.run(
            prepared.prompts, "m", lambda: ScriptedSampler(answer), config, store, work_uri,
            role="teacher", shard=shard,
        )
        for shard in of(2)
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"too many prompts were set aside.*at most 20%"):
        generate.merged(shards, config, store)


def test_verdicts_on_answers_that_are_no_more_are_not_taken_for_others(
    started: Callable[..., Run], store: Store
) -> None:
    run = started("evaluate open")
    made = run.all(2)
    answers = f"{made.uri.rpartition('/')[0]}/{made.inputs['answers']}"
    rows = read_rows(store, made, EvalResult)
    assert any(row.correct for row in rows)
    store.delete(store.sizes(answers))
    run.samplers.clear()

    def others(prompt: str, seed: int | None) -> str:
        return f"{answer(prompt, seed)} now"

    with pytest.raises(DataError, match="verdicts on other answers"):
        evaluate.run(
            run.prepared.heldout, run.prepared.gold, "m", lambda: ScriptedSampler(others), run.config, store,
            run.uri, name="x", judge=Judge("t", lambda: ScriptedSampler(verdict)),
        )  # fmt: skip
