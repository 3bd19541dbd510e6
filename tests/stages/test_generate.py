"""generate: the grid of samples, resume by row, prompts that do not fit and rows that kill the engine."""

import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from limbeck.config import Config
from limbeck.devices import num_gpus
from limbeck.errors import DataError, EngineError
from limbeck.manifest import Manifest
from limbeck.records import Completion, RejectedRow
from limbeck.rows import read_part, read_rows
from limbeck.shards import Shard
from limbeck.stages.generate import run
from limbeck.stages.prepare import Prepared
from limbeck.storage import Store, StoredObject
from tests.fakes import ScriptedSampler
from tests.stages.conftest import ConfigFor

GRID: dict[str, dict[str, Any]] = {
    "generate": {
        "teacher": {"samples_per_prompt": 5, "temperatures": [0.3, 1.0], "max_tokens": 20},
        "rows_per_part": 20,
    },
    "engine": {"max_model_len": 50},
}


def answer(prompt: str, seed: int | None) -> str:
    return f"{prompt} {seed} = {(seed or 0) % 7}"


def generate(
    prompts: Manifest, sampler: ScriptedSampler, config: Config, store: Store, work_uri: str, **where: Any
) -> Manifest:
    return run(prompts, "hash", lambda: sampler, config, store, work_uri, role="teacher", **where)


def test_every_prompt_gets_the_grid_with_its_own_seeds(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    made = generate(prepared.prompts, ScriptedSampler(answer), config_for(**GRID), store, work_uri)
    rows = read_rows(store, made, Completion)
    assert len(rows) == made.num_rows == prepared.prompts.num_rows * 5
    by_prompt = Counter(row.prompt_id for row in rows)
    assert set(by_prompt.values()) == {5}
    assert [row.temperature for row in rows[:5]] == [0.3, 1.0, 0.3, 1.0, 0.3]
    assert len({row.seed for row in rows}) == len({row.completion_id for row in rows}) == len(rows)
    assert all(row.answer == str(row.seed % 7) for row in rows)
    assert made.num_gpus == num_gpus()
    assert made.metrics == {
        "generate/prompt_tokens": sum(row.num_prompt_tokens for row in rows),
        "generate/completion_tokens": sum(row.num_tokens for row in rows),
    }
    assert min(made.metrics.values()) > 0


@pytest.mark.parametrize("die_after", [1, 19, 60, 61, 158])
def test_after_a_kill_only_missing_rows_are_asked_and_the_parts_are_those_of_an_unbroken_run(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared, die_after: int
) -> None:
    """Rows are stored one by one here, so that none is asked twice."""
    config = config_for(**{**GRID, "generate": {**GRID["generate"], "commit_seconds": 1e-9}})
    whole = generate(prepared.prompts, ScriptedSampler(answer), config, store, f"{work_uri}/unbroken")
    assert whole.num_rows == 160
    with pytest.raises(KeyboardInterrupt):
        generate(prepared.prompts, ScriptedSampler(answer, die_after=die_after), config, store, work_uri)
    second = ScriptedSampler(answer)
    made = generate(prepared.prompts, second, config, store, work_uri)
    assert len(second.answered) == made.num_rows - die_after
    assert second.closed
    assert made.content_hash == whole.content_hash
    assert made.metrics == whole.metrics  # the tokens of both attempts
    assert read_rows(store, made, Completion) == read_rows(store, whole, Completion)
    assert set(store.sizes(made.uri)) - {f"{made.uri}/lease.json"} == {
        f"{made.uri}/manifest.json",
        *(item.uri for item in made.objects),
    }
    idle = ScriptedSampler(answer)
    assert generate(prepared.prompts, idle, config, store, work_uri) == made
    assert not idle.answered


def test_shards_split_the_prompts(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    shards = [
        generate(
            prepared.prompts,
            ScriptedSampler(answer),
            config_for(**GRID),
            store,
            work_uri,
            shard=Shard(index=n, count=3),
        )
        for n in range(3)
    ]
    ids = [{row.prompt_id for row in read_rows(store, made, Completion)} for made in shards]
    assert sum(map(len, ids)) == len(set.union(*ids)) == prepared.prompts.num_rows


def test_one_prompt_too_long_is_set_aside_and_the_rest_go_on(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    # One token a character: `sum 10` leaves no room for 20 in 25, `sum 9` does.
    config = config_for(
        **{
            **GRID,
            "engine": {"max_model_len": 25},
            "generate": {
                **GRID["generate"],
                "max_bad_fraction": 1.0,
            },
        }
    )
    made = generate(prepared.prompts, ScriptedSampler(answer), config, store, work_uri)
    assert 0 < made.num_rows < prepared.prompts.num_rows * 5
    rejected = rejected_rows(store, made)
    assert {row.reason for row in rejected} == {"prompt too long: 6 tokens, room for 5"}
    assert made.rejected == {"prompt too long": len(rejected)}
    assert len(rejected) + made.num_rows // 5 == prepared.prompts.num_rows


def test_too_many_too_long_prompts_stop_the_stage(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    config = config_for(**{**GRID, "engine": {"max_model_len": 21}})
    with pytest.raises(
        DataError, match=r"too many prompts were set aside.*at most 5%.*Raise engine.max_model_len"
    ):
        generate(prepared.prompts, ScriptedSampler(answer), config, store, work_uri)


def deadly(prompt: str, seed: int | None) -> bool:
    """Two rows of one prompt and one of another."""
    return (prompt, (seed or 0) % 5) in {("sum 7", 1), ("sum 7", 2), ("sum 12", 3)}


def test_rows_that_kill_the_engine_are_set_aside_and_the_rest_go_on(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    config = config_for(**GRID)
    whole = generate(prepared.prompts, ScriptedSampler(answer), config, store, f"{work_uri}/healthy")
    healthy = read_rows(store, whole, Completion)
    of = {row.prompt_id: row.text.split(" = ")[0].rpartition(" ")[0] for row in healthy}
    fatal = [row.completion_id for row in healthy if deadly(of[row.prompt_id], row.seed)]
    assert 0 < len(fatal) <= 0.05 * len(healthy)

    sampler = ScriptedSampler(answer, deadly=deadly)
    made = generate(prepared.prompts, sampler, config, store, work_uri)
    assert read_rows(store, made, Completion) == [row for row in healthy if row.completion_id not in fatal]
    assert {row.where for row in rejected_rows(store, made)} == {f"completion {key}" for key in fatal}
    assert made.rejected == {"kills the engine": len(fatal)}
    assert sampler.closed


@pytest.mark.parametrize("die_after", [20, 100, 155])
def test_what_was_set_aside_before_a_kill_is_not_tried_again_and_counts(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared, die_after: int
) -> None:
    # One part, and no time to store it: what is stored is stored because a row was set aside.
    config = config_for(**{**GRID, "generate": {**GRID["generate"], "rows_per_part": 1000}})
    whole = generate(
        prepared.prompts, ScriptedSampler(answer, deadly=deadly), config, store, f"{work_uri}/whole"
    )
    first = ScriptedSampler(answer, deadly=deadly, die_after=die_after)
    with pytest.raises(KeyboardInterrupt):
        generate(prepared.prompts, first, config, store, work_uri)
    second = ScriptedSampler(answer, deadly=deadly)
    made = generate(prepared.prompts, second, config, store, work_uri)
    assert made.content_hash == whole.content_hash
    assert made.rejected == whole.rejected
    assert first.restarts > 0 or die_after == 20
    assert second.restarts == 0 or die_after < 155
    strict = config_for(**{**GRID, "generate": {**GRID["generate"], "max_bad_fraction": 0.001}})
    uri = f"{work_uri}/strict"
    for asked in (160 - len(rejected_rows(store, whole)), 0):  # a second attempt has nothing to ask
        third = ScriptedSampler(answer, deadly=deadly)
        with pytest.raises(DataError, match=r"set aside.*of 160 completions, the first: kills the engine"):
            generate(prepared.prompts, third, strict, store, uri)
        assert len(third.answered) == asked


class Killed(Store):
    """A store whose client is killed just before it writes a file of some name, or before it deletes."""

    def __init__(self, before: str) -> None:
        super().__init__()
        self.before = before

    def write_file(self, path: Path, uri: str, rows: int = 0) -> StoredObject:
        if f"/{self.before}-" in uri:
            raise KeyboardInterrupt
        return super().write_file(path, uri, rows)

    def delete(self, uris: Iterable[str]) -> None:
        doomed = list(uris)
        if doomed and self.before == "delete":
            raise KeyboardInterrupt
        super().delete(doomed)


@pytest.mark.parametrize("before", ["rejected", "part"])
def test_killed_while_a_part_is_written_the_row_that_was_set_aside_is_in_the_count(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared, before: str
) -> None:
    config = config_for(**{**GRID, "generate": {**GRID["generate"], "rows_per_part": 1000}})
    healthy = generate(prepared.prompts, ScriptedSampler(answer), config, store, f"{work_uri}/healthy")
    *others, last = read_rows(store, healthy, Completion)

    def kills(prompt: str, seed: int | None) -> bool:
        """The last row, so that the part is whole when it is set aside."""
        return seed == last.seed

    first, second = (ScriptedSampler(answer, deadly=kills) for _ in range(2))
    with pytest.raises(KeyboardInterrupt):
        generate(prepared.prompts, first, config, Killed(before), work_uri)
    made = generate(prepared.prompts, second, config, store, work_uri)
    assert made.rejected == {"kills the engine": 1}
    assert read_rows(store, made, Completion) == others
    assert (second.restarts == 0) == (before == "part"), "what is stored of it is not tried again"


def test_killed_after_its_last_part_it_asks_for_nothing_and_counts_no_row_twice(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**GRID["generate"], "rows_per_part": 1000, "commit_seconds": 1e-9}
    config = config_for(**{**GRID, "generate": settings})
    with pytest.raises(KeyboardInterrupt):
        generate(prepared.prompts, ScriptedSampler(answer), config, Killed("delete"), work_uri)
    assert sum("/loose-" in uri for uri in store.sizes(work_uri)) > 100
    idle = ScriptedSampler(answer)
    made = generate(prepared.prompts, idle, config, store, work_uri)
    assert not idle.answered
    assert "generate(teacher): 160/160 completions are there already" in capsys.readouterr().out
    assert not any("/loose-" in uri for uri in store.sizes(made.uri))


def test_the_start_of_an_engine_is_no_part_of_the_rate(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    def start_slowly() -> ScriptedSampler:
        time.sleep(4.0)
        return ScriptedSampler(answer)

    made = run(prepared.prompts, "hash", start_slowly, config_for(**GRID), store, work_uri, role="teacher")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.endswith(", done")]
    rate = float(line.split(", ")[1].removesuffix("/s").replace(",", ""))
    assert rate > made.num_rows / 4.0


def test_an_engine_that_dies_of_every_row_leaves_no_row_behind(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    config = config_for(**{**GRID, "engine": {"max_model_len": 50, "max_restarts": 6}})
    with pytest.raises(EngineError, match=r"does not stay alive.*at most 6 restarts"):
        generate(prepared.prompts, ScriptedSampler(answer, deadly=lambda *_: True), config, store, work_uri)
    assert all(uri.endswith("/lease.json") for uri in store.sizes(f"{work_uri}/generate"))
    assert generate(prepared.prompts, ScriptedSampler(answer), config, store, work_uri).num_rows == 160


def rejected_rows(store: Store, made: Manifest) -> list[RejectedRow]:
    items = [item for item in made.objects if "/rejected-" in item.uri]
    return [row for item in items for row in read_part(store, item, RejectedRow)]


def test_other_settings_never_find_old_rows(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    first = generate(prepared.prompts, ScriptedSampler(answer), config_for(**GRID), store, work_uri)
    other = generate(prepared.prompts, ScriptedSampler(answer), config_for(**GRID, seed=2), store, work_uri)
    assert first.uri != other.uri
