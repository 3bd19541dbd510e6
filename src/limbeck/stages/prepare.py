"""prepare: a data set becomes train prompts, held-out prompts and, apart from both, gold answers.

Broken rows are set aside with their reason; duplicates go, and a train prompt that is also held out
leaves the train side. Then near-duplicates go, and train prompts that are too much like a held-out one
(`limbeck.cleaning`). Only `evaluate` and `report` are ever given the gold manifest.

In memory is one batch of rows and the ids of all; usable rows wait on the local disk until their side is
known.
"""

import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from limbeck import lease, settings
from limbeck.answers.choice import LETTERS, letter_of, with_options
from limbeck.cleaning import clean
from limbeck.config import Config
from limbeck.data_statistics import FILE, DataStatistics
from limbeck.errors import ConfigError, DataError
from limbeck.manifest import Manifest, code_version, commit, digest, find, stage_uri
from limbeck.progress import say
from limbeck.records import GoldAnswer, Prompt, RejectedRow, row_id
from limbeck.rows import PartWriter, parquet_rows
from limbeck.storage import Store, StoredObject

MAX_LINE_BYTES = 16 << 20
"""Longer lines are set aside: one without an end would fill the memory."""


class Prepared(NamedTuple):
    """The three outputs."""

    prompts: Manifest
    heldout: Manifest
    gold: Manifest


class Question(NamedTuple):
    """A prompt with its gold answer, if any, before they part."""

    prompt_id: str
    prompt: str
    answer: str | None


def run(data: str, heldout_data: str, config: Config, store: Store, work_uri: str) -> Prepared:
    """Read a data set, split it and write the three parts.

    Held-out data alone, without train prompts, is enough for pipelines that only evaluate.

    Args:
        data: URI of a JSONL or Parquet file of prompts, or empty.
        heldout_data: The same of held-out prompts; without it a part of `data` is held out.
        config: `prepare`, `task.kind`, `task.shuffle_options` and the seed are read.
        store: Where the data lie and the results go.
        work_uri: The run's prefix.

    Raises:
        ConfigError: when no data set is named.
        LeaseError: when another attempt is at work.
        DataError: when a file is no JSONL or Parquet, holds no usable row, or too many broken ones.
    """
    started = time.monotonic()
    sources = {name: uri for name, uri in (("prompts", data), ("heldout", heldout_data)) if uri}
    if not sources:
        raise ConfigError(
            "no data set",
            where="prepare",
            expected="prompts, held-out prompts or both",
            got="neither",
            remedy="Name a JSONL or Parquet file",
        )
    inputs = {name: _content_hash(store, uri) for name, uri in sources.items()}
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
                    name: _read(store, source, files[name], config, rejected, reasons)
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


def _content_hash(store: Store, uri: str) -> str:
    """What stands for a data file in the stage's inputs."""
    item = store.stored(uri)
    if item is None:
        raise DataError("no such data set", where=uri, remedy="Check the address")
    return digest([item.sha256 or uri, item.bytes])


def _is_held(prompt_id: str, config: Config) -> bool:
    """Hold out a part, chosen by a hash of seed and prompt: stable when rows are added."""
    return int(row_id(config.seed, prompt_id), 16) / 16**16 < config.prepare.heldout_fraction


def _check_sides(sources: dict[str, str], num_train: int, num_heldout: int) -> None:
    """Refuse a split with an empty side; without train prompts only held-out ones are asked for."""
    if num_heldout and (num_train or "prompts" not in sources):
        return
    raise DataError(
        "no prompts are left",
        where=next(iter(sources.values())),
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
    uri: str,
    path: Path,
    config: Config,
    rejected: PartWriter[RejectedRow],
    reasons: Counter[str],
) -> set[str]:
    """Write the usable questions of one file, each prompt once, to a local path; give their ids.

    The other rows go to `rejected`, and are counted by reason.
    """
    ids: set[str] = set()
    broken = total = 0
    first: RejectedRow | None = None
    columns = ("prompt", "answer", "options") if config.task.kind == "choice" else ("prompt", "answer")
    with path.open("w", encoding="ascii") as file:
        for number, raw in _raw_rows(store, uri, columns):
            total += 1
            question, reason = _question(raw, config)
            if question is not None and question.prompt_id not in ids:
                ids.add(question.prompt_id)
                file.write(json.dumps(question) + "\n")
                continue
            reason = reason or "duplicate"
            reasons[reason] += 1
            row = RejectedRow(where=f"{uri}, row {number}", reason=reason, row=_shown(raw))
            rejected.add(row)
            if question is None:
                broken += 1
                first = first or row
    if not total:
        raise DataError(
            "the data set is empty",
            where=uri,
            expected="rows with a field `prompt`",
            got="no rows",
            remedy="Check the file",
        )
    if first and broken > config.prepare.max_bad_fraction * total:
        raise DataError(
            "too many broken rows",
            where=first.where,
            expected=f"at most {config.prepare.max_bad_fraction:.0%} (prepare.max_bad_fraction)",
            got=f"{broken} of {total}, the first: {first.reason}: {first.row[:60]}",
            remedy="Mend the file, each row needs a text `prompt` and may have an `answer`",
        )
    return ids


def _questions(path: Path | None) -> Iterator[Question]:
    """The questions that `_read` left at a path."""
    if path is not None:
        with path.open(encoding="ascii") as file:
            yield from (Question(*json.loads(line)) for line in file)


def _raw_rows(
    store: Store, uri: str, columns: tuple[str, ...]
) -> Iterator[tuple[int, bytes | dict[str, Any]]]:
    """Numbered rows of a JSONL file (as bytes) or of a Parquet file (as dicts)."""
    item = store.stored(uri)
    if item is None:
        raise DataError("no such data set", where=uri, remedy="Check the address")
    with tempfile.TemporaryDirectory() as folder:
        path = store.read_file(item, Path(folder) / "data")
        if uri.endswith(".parquet"):
            yield from enumerate(parquet_rows(path, uri, columns), 1)
            return
        with path.open("rb") as file:
            yield from ((number, line) for number, line in enumerate(_lines(file), 1) if line.strip())


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; of one that is too long its beginning, which is still too long."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        yield line
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES + 1)


def _question(raw: bytes | dict[str, Any], config: Config) -> tuple[Question | None, str]:
    """One row as a question, or None and the reason."""
    value: Any = raw
    if isinstance(raw, bytes):
        if len(raw) > MAX_LINE_BYTES:
            return None, "line too long"
        try:
            value = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError:
            return None, "not UTF-8"
        except (ValueError, RecursionError):  # ValueError: also an integer of thousands of digits
            return None, "not JSON"
    if not isinstance(value, dict):
        return None, "not an object"
    prompt, answer = value.get("prompt"), value.get("answer")
    if prompt is None:
        return None, "prompt missing"
    if not isinstance(prompt, str):
        return None, "prompt not a text"
    prompt = prompt.strip()
    if not prompt:
        return None, "prompt empty"
    if len(prompt) > config.prepare.max_prompt_chars:
        return None, "prompt too long"
    if isinstance(answer, bool) or not isinstance(answer, str | int | float | None):
        return None, "answer not a text or number"
    if not _is_unicode(prompt) or (isinstance(answer, str) and not _is_unicode(answer)):
        return None, "half a surrogate pair"
    answer = None if answer is None else str(answer)
    if config.task.kind == "choice" and value.get("options") is not None:
        return _choice(prompt, answer, value["options"], config)
    return Question(row_id(prompt), prompt, answer), ""


def _choice(prompt: str, answer: str | None, options: object, config: Config) -> tuple[Question | None, str]:
    """A question with its options below it and the letter of its gold answer, or None and the reason.

    Options are sorted before they are shuffled, so a question that stands twice in the data, with its options
    in two orders, becomes one prompt.
    """
    if not isinstance(options, list) or not all(isinstance(item, str) for item in options):
        return None, "options not a list of texts"
    texts = [" ".join(item.split()) for item in options]
    if not 2 <= len(texts) <= len(LETTERS):
        return None, f"not 2 to {len(LETTERS)} options"
    if not all(texts) or len(set(texts)) < len(texts):
        return None, "an option empty or repeated"
    if not all(map(_is_unicode, texts)):
        return None, "half a surrogate pair"
    place = None if answer is None else letter_of(answer, texts)
    if answer is not None and place is None:
        return None, "answer not among the options"
    shown = texts
    if config.task.shuffle_options:
        shown = sorted(texts)
        random.Random(row_id(config.seed, "options", prompt, *shown)).shuffle(shown)  # noqa: S311 - no secret
    letter = None if place is None else LETTERS[shown.index(texts[place])]
    prompt = with_options(prompt, shown)
    if len(prompt) > config.prepare.max_prompt_chars:
        return None, "prompt too long"
    return Question(row_id(prompt), prompt, letter), ""


def _is_unicode(text: str) -> bool:
    """Whether a text can be encoded; JSON may spell out lone halves of surrogate pairs, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(raw: bytes | dict[str, Any]) -> str:
    """A row as text for people, cut."""
    text = raw.decode("utf-8", errors="replace") if isinstance(raw, bytes) else repr(raw)
    return text.strip()[:500]
