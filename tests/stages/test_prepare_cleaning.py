"""prepare: what is too much alike leaves the train side, with its counterpart named, and nothing is lost."""

import json
from collections import Counter

import pytest

from limbeck.data_statistics import DataStatistics
from limbeck.errors import DataError
from limbeck.manifest import Manifest
from limbeck.records import GoldAnswer, Prompt, RejectedRow, row_id
from limbeck.rows import read_part, read_rows
from limbeck.stages.prepare import Prepared, run
from limbeck.storage import Store
from tests.stages.conftest import ConfigFor, put

SUBJECTS = ["Ann", "Ben", "Cleo", "Dan", "Eve", "Finn"]
PLACES = ["the market", "a farm", "the harbour", "her school", "the old mill", "a station"]


def problem(number: int) -> str:
    """A word problem; each number gives another one, in its figures at least."""
    who, where = SUBJECTS[number % 6], PLACES[number // 6 % 6]
    return (
        f"{who} goes to {where} with {number + 20} coins in the left pocket and buys {number + 3} loaves "
        f"of fresh bread for {who}'s neighbours on the hill. "
        f"How many coins are left when {who} comes home at night?"
    )


TRAIN = [problem(number) for number in range(40)]
HELDOUT = [problem(number) for number in range(100, 120)]
NEAR = [TRAIN[0].replace("loaves", "loafs"), TRAIN[1].lower(), TRAIN[2] + " Think."]
NEAR_HELDOUT = [HELDOUT[0].replace("fresh", "white")]
INSIDE = [
    "My cousin wrote this in her diary on a rainy day and she forgot it at once: "
    f"{HELDOUT[1]} Now tell me a tale of a wolf and a hen, in verses, that has nothing to do with it."
]


def stored(store: Store, uri: str, texts: list[str]) -> str:
    rows = [json.dumps({"prompt": text, "answer": number}) for number, text in enumerate(texts)]
    put(store, uri, "\n".join(rows).encode())
    return uri


def statistics(store: Store, manifest: Manifest) -> DataStatistics:
    (item,) = [item for item in manifest.objects if item.uri.endswith("/statistics.json")]
    return DataStatistics.model_validate_json(store.read_bytes(item.uri))


def removed(store: Store, made: Prepared) -> list[RejectedRow]:
    parts = [item for item in made.prompts.objects if "/removed-" in item.uri]
    return [row for item in parts for row in read_part(store, item, RejectedRow)]


def texts(store: Store, manifest: Manifest) -> list[str]:
    return [row.prompt for row in read_rows(store, manifest, Prompt)]


def test_what_is_alike_leaves_with_its_reason_and_counterpart(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    rows = [*TRAIN, *NEAR, *NEAR_HELDOUT, *INSIDE, HELDOUT[5], TRAIN[9]]
    data = stored(store, f"{work_uri}/in/data.jsonl", rows)
    heldout = stored(store, f"{work_uri}/in/held.jsonl", [*HELDOUT, HELDOUT[7] + ".."])
    made = run(data, heldout, config_for(), store, work_uri)

    assert made.prompts.rejected == {
        "duplicate": 1,
        "also held out": 1,
        "near duplicate": 3,
        "contaminated: near duplicate": 1,
        "contaminated: n-gram": 1,
    }
    assert texts(store, made.heldout) == [*HELDOUT, HELDOUT[7] + ".."]
    kept = texts(store, made.prompts)
    assert set(TRAIN[3:]) <= set(kept)
    assert len(set(kept) & {*TRAIN[:3], *NEAR}) == 3
    # Nothing is lost: what came in went out or was set aside.
    assert len(kept) + len(HELDOUT) + 1 + sum(made.prompts.rejected.values()) == len(rows) + len(HELDOUT) + 1
    assert made.prompts.num_input_rows == len(rows)

    aside = removed(store, made)
    assert Counter(row.reason for row in aside) == {
        reason: number for reason, number in made.prompts.rejected.items() if reason != "duplicate"
    }
    stays = {row_id(text): text for text in (*kept, *HELDOUT)}
    like = {row.row: stays[row.where.rsplit(" ", 1)[1]] for row in aside}
    assert like[NEAR_HELDOUT[0]] == HELDOUT[0]
    assert like[INSIDE[0][:500]] == HELDOUT[1]
    assert like[HELDOUT[5]] == HELDOUT[5]
    assert all(row.where.startswith(f"{data}, prompt {row_id(row.row)}, like ") for row in aside)

    # Of what left no gold answer is kept either.
    gold = {row.prompt_id for row in read_rows(store, made.gold, GoldAnswer)}
    assert gold == {row_id(text) for text in (*kept, *HELDOUT, HELDOUT[7] + "..")}


def test_the_statistics_tell_of_both_sides(store: Store, work_uri: str, config_for: ConfigFor) -> None:
    data = stored(store, f"{work_uri}/in/data.jsonl", [*TRAIN, *NEAR, *NEAR_HELDOUT, *INSIDE])
    heldout = stored(store, f"{work_uri}/in/held.jsonl", [*HELDOUT, HELDOUT[7] + ".."])
    made = run(data, heldout, config_for(), store, work_uri)
    train, held = statistics(store, made.prompts), statistics(store, made.heldout)
    assert (train.side, held.side) == ("train", "held-out")
    assert (train.num_prompts, held.num_prompts) == (made.prompts.num_rows, made.heldout.num_rows)
    assert train.num_alike == {
        "near duplicate": 3,
        "contaminated: n-gram": 1,
        "contaminated: near duplicate": 1,
    }
    assert held.num_alike == {"near duplicate": 1}
    kept = texts(store, made.prompts)
    assert train.characters.maximum == max(map(len, kept))
    assert train.numbers.maximum == train.numbers.p5 == 2
    examples = {item.reason: item for item in train.examples}
    assert examples["contaminated: n-gram"].other == HELDOUT[1]
    assert examples["contaminated: n-gram"].similarity is None
    assert examples["contaminated: near duplicate"].prompt == NEAR_HELDOUT[0]
    assert 0.8 <= (examples["contaminated: near duplicate"].similarity or 0) < 1
    assert {item.other for item in train.examples if item.reason == "near duplicate"} <= set(kept)


def test_the_order_of_the_file_changes_no_set(store: Store, work_uri: str, config_for: ConfigFor) -> None:
    rows = [*TRAIN, *NEAR, *NEAR_HELDOUT, *INSIDE]
    config = config_for(prepare={"heldout_fraction": 0.3})
    results = []
    for name, order in (("a", rows), ("b", rows[::-1])):
        made = run(stored(store, f"{work_uri}/in/{name}.jsonl", order), "", config, store, work_uri)
        results.append(
            (
                set(texts(store, made.prompts)),
                set(texts(store, made.heldout)),
                statistics(store, made.prompts),
                statistics(store, made.heldout),
                made.prompts.rejected,
            )
        )
    assert results[0] == results[1]


def test_switched_off_only_exact_copies_leave(store: Store, work_uri: str, config_for: ConfigFor) -> None:
    data = stored(store, f"{work_uri}/in/data.jsonl", [*TRAIN, *NEAR, *NEAR_HELDOUT, *INSIDE])
    heldout = stored(store, f"{work_uri}/in/held.jsonl", HELDOUT)
    off = config_for(prepare={"near_duplicates": None, "decontaminate_ngram": None})
    made = run(data, heldout, off, store, work_uri)
    assert made.prompts.num_rows == 45
    assert not made.prompts.rejected
    assert made.prompts.uri != run(data, heldout, config_for(), store, work_uri).prompts.uri


def test_a_train_side_that_is_the_test_set_is_refused(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    data = stored(store, f"{work_uri}/in/data.jsonl", [text.upper() for text in HELDOUT])
    heldout = stored(store, f"{work_uri}/in/held.jsonl", HELDOUT)
    with pytest.raises(DataError, match=r"no prompts are left.*0 train, 20 held out.*near_duplicates"):
        run(data, heldout, config_for(), store, work_uri)
