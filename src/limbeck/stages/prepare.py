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
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from limbeck import lease, settings
from limbeck.cleaning import Cleaned, clean
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
    sources = _sources(data, heldout_data, config, store)
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
            with PartWriter(store, f"{uri}/prompts", RejectedRow, "rejected") as rejected:
                split = _split(sources, Path(folder), config, store, rejected, reasons)
            cleaned = _cleaned(split, sources, config, reasons)
            rows_out = _write_rows(split, cleaned, data, store, uri)
        say(
            f"prepare: {rows_out.prompts.num_rows} train prompts, {rows_out.heldout.num_rows} held out, "
            f"{rows_out.gold.num_rows} gold answers kept apart, {rejected.num_rows} rows set aside"
        )
        _say_what_was_alike(cleaned.train, config.prepare.max_alike)

        def done(
            part: str, out: PartWriter[Any], more: Iterable[StoredObject] = (), **extra: Any
        ) -> Manifest:
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

        of_train = _write_statistics(store, f"{uri}/prompts", cleaned.train)
        of_heldout = _write_statistics(store, f"{uri}/heldout", cleaned.heldout)
        return Prepared(
            prompts=done(
                "prompts",
                rows_out.prompts,
                [*rejected.objects, *rows_out.removed.objects, of_train],
                num_input_rows=len(split.asked) + rejected.num_rows,
                rejected=dict(reasons),
            ),
            heldout=done("heldout", rows_out.heldout, [of_heldout]),
            gold=done("gold", rows_out.gold),
        )


class _Split(NamedTuple):
    """The usable questions, on the local disk, and which of them are held out."""

    paths: Mapping[str, Path]
    """`prompts`, `heldout` or both, as they were read."""
    asked: set[str]
    """The ids of `prompts`."""
    held_out: set[str]
    num_train: int

    def train(self) -> Iterator[Question]:
        """The questions to train on."""
        return self._some(self.paths.get("prompts"), held_out=False)

    def heldout(self) -> Iterator[Question]:
        """The questions to measure with."""
        return self._some(self.paths.get("heldout", self.paths.get("prompts")), held_out=True)

    def also_held_out(self) -> Iterator[Question]:
        """Questions of `prompts` that a data set of held-out prompts has too."""
        return self._some(self.paths.get("prompts") if "heldout" in self.paths else None, held_out=True)

    def _some(self, path: Path | None, *, held_out: bool) -> Iterator[Question]:
        return (item for item in _questions(path) if (item.prompt_id in self.held_out) is held_out)


class _RowsOut(NamedTuple):
    """What was written of each part."""

    prompts: PartWriter[Prompt]
    removed: PartWriter[RejectedRow]
    heldout: PartWriter[Prompt]
    gold: PartWriter[GoldAnswer]


def _sources(data: str, heldout_data: str, config: Config, store: Store) -> dict[str, Source]:
    """The data sets that are named, `prompts` and `heldout`."""
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
    return {name: locate(address, store, config.prepare) for name, address in addresses.items()}


def _split(
    sources: Mapping[str, Source],
    folder: Path,
    config: Config,
    store: Store,
    rejected: PartWriter[RejectedRow],
    reasons: Counter[str],
) -> _Split:
    """Read the data sets and say of each question on which side it is.

    The other rows go to `rejected`, and are counted by reason, as are train prompts that are also held out.
    """
    paths = {name: folder / name for name in sources}
    ids = {
        name: _read(store, source, paths[name], preset_of(name, config), config, rejected, reasons)
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
        say(f"prepare: {len(asked) - num_train} train prompts are also held out and leave the train side")
    return _Split(paths, asked, held_out, num_train)


def _cleaned(split: _Split, sources: Mapping[str, Source], config: Config, reasons: Counter[str]) -> Cleaned:
    """Which train prompts are too much like others, counted by reason."""
    cleaned = clean(
        ((item.prompt_id, item.prompt) for item in split.train()),
        ((item.prompt_id, item.prompt) for item in split.heldout()),
        config.prepare.near_duplicates,
        config.prepare.decontaminate_ngram,
        config.prepare.max_alike,
    )
    reasons.update(item.reason for item in cleaned.leaving.values())
    _check_sides(sources, split.num_train - len(cleaned.leaving), len(split.held_out))
    return cleaned


def _write_rows(split: _Split, cleaned: Cleaned, data: str, store: Store, uri: str) -> _RowsOut:
    """Write prompts of both sides, gold answers apart from them, and the train prompts that leave."""
    with (
        PartWriter(store, f"{uri}/prompts", Prompt) as prompts_out,
        PartWriter(store, f"{uri}/prompts", RejectedRow, "removed") as removed,
        PartWriter(store, f"{uri}/heldout", Prompt) as heldout_out,
        PartWriter(store, f"{uri}/gold", GoldAnswer) as gold_out,
    ):
        for item in split.also_held_out():
            removed.add(_removed(item, data, "also held out", item.prompt_id))
        for items, out in ((split.train(), prompts_out), (split.heldout(), heldout_out)):
            for item in items:
                if leaving := cleaned.leaving.get(item.prompt_id):
                    removed.add(_removed(item, data, *leaving))
                    continue
                out.add(Prompt(prompt_id=item.prompt_id, prompt=item.prompt))
                if item.answer is not None:
                    gold_out.add(GoldAnswer(prompt_id=item.prompt_id, answer=item.answer))
    return _RowsOut(prompts_out, removed, heldout_out, gold_out)


def _is_held(prompt_id: str, config: Config) -> bool:
    """Hold out a part, chosen by a hash of seed and prompt: stable when rows are added."""
    return int(row_id(config.seed, prompt_id), 16) / 16**16 < config.prepare.heldout_fraction


def _check_sides(sources: Mapping[str, Source], num_train: int, num_heldout: int) -> None:
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


def _write_statistics(store: Store, uri: str, statistics: DataStatistics) -> StoredObject:
    """Store what is said of one side beside its prompts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        path.write_text(statistics.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return store.write_file(path, f"{uri}/{FILE}")


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
