"""prepare: a data set becomes train prompts, held-out prompts and, apart from both, gold answers.

Broken rows are set aside with their reason; duplicates go, and a train prompt that is also held out
leaves the train side. Then near-duplicates go, and train prompts that are too much like a held-out one
(`limbeck.cleaning`). Only `evaluate` and `report` are ever given the gold manifest.

In memory is one batch of rows and the ids of all; usable rows wait on the local disk until their side is
known.
"""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from limbeck import lease, settings
from limbeck.cleaning import clean
from limbeck.config import Config, Preset
from limbeck.data_statistics import FILE, DataStatistics
from limbeck.errors import ConfigError, DataError
from limbeck.manifest import Manifest, code_version, commit, find, stage_uri
from limbeck.presets import Aside, check_task
from limbeck.progress import say
from limbeck.questions import Question, Raw, Unread, columns, preset_of, question
from limbeck.records import GoldAnswer, Prompt, RejectedRow, row_id
from limbeck.rows import PartWriter
from limbeck.sources import Source, locate, rows
from limbeck.storage import Store, StoredObject


class Prepared(NamedTuple):
    """The three outputs."""

    prompts: Manifest
    heldout: Manifest
    gold: Manifest


def run(data: str, heldout_data: str, config: Config, store: Store, work_uri: str) -> Prepared:
    """Read a data set, split it and write the three parts.

    Held-out data alone, without train prompts, is enough for pipelines that only evaluate.

    Args:
        data: Address of the prompts, see `limbeck.sources`, or empty.
        heldout_data: The same of held-out prompts; without it a part of `data` is held out.
        config: `prepare`, `task.kind`, `task.shuffle_options` and the seed are read.
        store: Where the data lie and the results go.
        work_uri: The run's prefix.

    Raises:
        ConfigError: when no data set is named, or `task.kind` does not go with the preset.
        LeaseError: when another attempt is at work.
        DataError: when a file is not what its name says, holds no usable row, or too many broken ones.
        StorageError: when the store or the hub cannot be reached.
    """
    started = time.monotonic()
    for preset in (config.prepare.preset, config.prepare.heldout_preset):
        check_task(preset, config.task.kind)
    addresses = {name: uri for name, uri in (("prompts", data), ("heldout", heldout_data)) if uri}
    if not addresses:
        raise ConfigError(
            "no data set",
            where="prepare",
            expected="prompts, held-out prompts or both",
            got="neither",
            remedy="Name a file, a folder or hf://, see docs/data.md",
        )
    sources = {name: locate(address, store, config.prepare) for name, address in addresses.items()}
    inputs = {name: source.content_hash for name, source in sources.items()}
    config_hash = settings.of_prepare(config)
    uri = stage_uri(work_uri, "prepare", inputs, config_hash)
    complete = [find(store, f"{uri}/{part}") for part in Prepared._fields]
    if all(complete):
        say("prepare: already complete, nothing to do")
        return Prepared(*(item for item in complete if item))

    with lease.held(store, uri, "prepare") as held:
        reasons: Counter[str] = Counter()
        with tempfile.TemporaryDirectory() as folder:
            files = {name: Path(folder) / name for name in sources}
            with PartWriter(store, f"{uri}/prompts", RejectedRow, "rejected") as rejected:
                ids = {
                    name: _read(
                        store, source, files[name], preset_of(name, config), config, rejected, reasons
                    )
                    for name, source in sources.items()
                }
            asked = ids.get("prompts", set())
            held_out = ids.get("heldout")
            if held_out is None:
                held_out = {item for item in asked if _is_held(item, config)}
            num_train = sum(item not in held_out for item in asked)
            _check_sides(sources, num_train, len(held_out))
            if "heldout" in ids and num_train < len(asked):
                reasons["also held out"] = len(asked) - num_train
                say(
                    f"prepare: {len(asked) - num_train} train prompts are also held out "
                    "and leave the train side"
                )

            def side(name: str) -> Iterator[Question]:
                path = files.get(name, files.get("prompts"))
                wanted = name == "heldout"
                return (item for item in _questions(path) if (item.prompt_id in held_out) is wanted)

            cleaned = clean(
                ((item.prompt_id, item.prompt) for item in side("prompts")),
                ((item.prompt_id, item.prompt) for item in side("heldout")),
                config.prepare.near_duplicates,
                config.prepare.decontaminate_ngram,
                config.prepare.max_alike,
            )
            reasons.update(item.reason for item in cleaned.leaving.values())
            num_train -= len(cleaned.leaving)
            _check_sides(sources, num_train, len(held_out))
            with (
                PartWriter(store, f"{uri}/prompts", Prompt) as prompts_out,
                PartWriter(store, f"{uri}/prompts", RejectedRow, "removed") as removed,
                PartWriter(store, f"{uri}/heldout", Prompt) as heldout_out,
                PartWriter(store, f"{uri}/gold", GoldAnswer) as gold_out,
            ):
                if "heldout" in ids:
                    for item in _questions(files.get("prompts")):
                        if item.prompt_id in held_out:
                            removed.add(_removed(item, data, "also held out", item.prompt_id))
                for name, out in (("prompts", prompts_out), ("heldout", heldout_out)):
                    for item in side(name):
                        if leaving := cleaned.leaving.get(item.prompt_id):
                            removed.add(_removed(item, data, *leaving))
                            continue
                        out.add(Prompt(prompt_id=item.prompt_id, prompt=item.prompt))
                        if item.answer is not None:
                            gold_out.add(GoldAnswer(prompt_id=item.prompt_id, answer=item.answer))
        say(
            f"prepare: {num_train} train prompts, {len(held_out)} held out, {gold_out.num_rows} gold answers "
            f"kept apart, {rejected.num_rows} rows set aside"
        )
        _say_what_was_alike(cleaned.train, config.prepare.max_alike)

        def write(part: str, out: PartWriter[Any], more: list[StoredObject], **extra: Any) -> Manifest:
            return commit(
                store,
                Manifest(
                    stage="prepare",
                    kind=part,
                    name=part,
                    uri=f"{uri}/{part}",
                    objects=(*out.objects, *more),
                    inputs=inputs,
                    config_hash=config_hash,
                    code_version=code_version("prepare"),
                    sources={name: source.address for name, source in sources.items()},
                    num_rows=out.num_rows,
                    wall_seconds=time.monotonic() - started,
                    **extra,
                ),
                held,
            )

        return Prepared(
            prompts=write(
                "prompts",
                prompts_out,
                [
                    *rejected.objects,
                    *removed.objects,
                    _write_statistics(store, uri, "prompts", cleaned.train),
                ],
                num_input_rows=len(asked) + rejected.num_rows,
                rejected=dict(reasons),
            ),
            heldout=write(
                "heldout", heldout_out, [_write_statistics(store, uri, "heldout", cleaned.heldout)]
            ),
            gold=write("gold", gold_out, []),
        )


def _is_held(prompt_id: str, config: Config) -> bool:
    """Hold out a part, chosen by a hash of seed and prompt: stable when rows are added."""
    return int(row_id(config.seed, prompt_id), 16) / 16**16 < config.prepare.heldout_fraction


def _check_sides(sources: dict[str, Source], num_train: int, num_heldout: int) -> None:
    """Refuse a split with an empty side; without train prompts only held-out ones are asked for."""
    if num_heldout and (num_train or "prompts" not in sources):
        return
    raise DataError(
        "no prompts are left",
        where=next(iter(sources.values())).address,
        expected="at least one train and one held-out prompt",
        got=f"{num_train} train, {num_heldout} held out, duplicates aside",
        remedy="Give more prompts or `heldout`; `prepare.near_duplicates` says what is a duplicate",
    )


def _removed(item: Question, data: str, reason: str, other_id: str) -> RejectedRow:
    """A train prompt that leaves, with the prompt that stays in its stead."""
    where = f"{data}, prompt {item.prompt_id}, like {other_id}"
    return RejectedRow(where=where, reason=reason, row=item.prompt[:500])


def _say_what_was_alike(train: DataStatistics, max_alike: int) -> None:
    """Tell which train prompts left, and which stayed although they are alike."""
    if train.num_alike:
        counts = ", ".join(f"{number} ({reason})" for reason, number in train.num_alike.items())
        say(f"prepare: {counts} left the train side")
    if train.num_from_templates:
        say(
            f"prepare: {train.num_from_templates} train prompts stay though they are alike, more than "
            f"{max_alike} of a kind (prepare.max_alike): a template, no copies"
        )


def _write_statistics(store: Store, uri: str, part: str, statistics: DataStatistics) -> StoredObject:
    """Store what is said of one side beside its prompts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        path.write_text(statistics.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return store.write_file(path, f"{uri}/{part}/{FILE}")


def _read(
    store: Store,
    source: Source,
    path: Path,
    preset: Preset | None,
    config: Config,
    rejected: PartWriter[RejectedRow],
    reasons: Counter[str],
) -> set[str]:
    """Write the usable questions of a data set, each prompt once, to a local path; give their ids.

    The other rows go to `rejected`, and are counted by reason.
    """
    ids: set[str] = set()
    broken = total = 0
    first: RejectedRow | None = None
    with path.open("w", encoding="ascii") as file:
        for row in rows(source, store, config.prepare, columns(preset, config)):
            total += 1
            asked = question(row.value, preset, config)
            if isinstance(asked, Question) and asked.prompt_id not in ids:
                ids.add(asked.prompt_id)
                file.write(json.dumps(asked) + "\n")
                continue
            reason = asked.reason if isinstance(asked, Aside) else "duplicate"
            reasons[reason] += 1
            aside = RejectedRow(where=row.where, reason=reason, row=_shown(row.value))
            rejected.add(aside)
            if isinstance(asked, Aside) and asked.is_broken:
                broken += 1
                first = first or aside
    if not total:
        raise DataError(
            "the data set is empty",
            where=source.address,
            expected=f"rows with a field `{columns(preset, config)[0]}`",
            got="no rows",
            remedy="Check the file",
        )
    if first and broken > config.prepare.max_bad_fraction * total:
        raise DataError(
            "too many broken rows",
            where=first.where,
            expected=f"at most {config.prepare.max_bad_fraction:.0%} (prepare.max_bad_fraction)",
            got=f"{broken} of {total}, the first: {first.reason}: {first.row[:60]}",
            remedy="Mend the file; prepare.fields names its columns, prepare.preset a published form",
        )
    return ids


def _questions(path: Path | None) -> Iterator[Question]:
    """The questions that `_read` left at a path."""
    if path is not None:
        with path.open(encoding="ascii") as file:
            yield from (Question(*json.loads(line)) for line in file)


def _shown(raw: Raw) -> str:
    """A row as text for people, cut."""
    if isinstance(raw, Unread):
        raw = raw.text.encode("utf-8", "surrogateescape")
    text = raw.decode("utf-8", errors="replace") if isinstance(raw, bytes) else repr(raw)
    return text.strip()[:500]
