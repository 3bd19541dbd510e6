"""prepare: a data set becomes train prompts, held-out prompts and, apart from both, gold answers.

Broken rows are set aside with their reason; duplicates go, and a train prompt that is also held out
leaves the train side. Only `evaluate` and `report` are ever given the gold manifest.
"""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from limbeck.config import Config, PrepareConfig
from limbeck.errors import DataError
from limbeck.manifest import Manifest, code_version, commit, digest, find, stage_uri
from limbeck.progress import say
from limbeck.records import GoldAnswer, Prompt, RejectedRow, Row, row_id
from limbeck.rows import write_rows
from limbeck.storage import Store


class Prepared(NamedTuple):
    """The three outputs."""

    prompts: Manifest
    heldout: Manifest
    gold: Manifest


@dataclass(frozen=True)
class Question:
    """A prompt with its gold answer, if any, before they part."""

    prompt_id: str
    prompt: str
    answer: str | None


def run(config: Config, store: Store, work_uri: str) -> Prepared:
    """Read the data set named by `config.data`, split it and write the three parts.

    Raises:
        DataError: when a file is no JSONL or Parquet, holds no usable row, or too many broken ones.
    """
    started = time.monotonic()
    sources = {"prompts": config.data.prompts} | (
        {"heldout": config.data.heldout} if config.data.heldout else {}
    )
    inputs = {name: _content_hash(store, uri) for name, uri in sources.items()}
    config_hash = digest([config.seed, config.prepare.model_dump()])
    uri = stage_uri(work_uri, "prepare", inputs, config_hash)
    complete = [find(store, f"{uri}/{part}") for part in Prepared._fields]
    if all(complete):
        say("prepare: already complete, nothing to do")
        return Prepared(*(item for item in complete if item))

    rejected: list[RejectedRow] = []
    questions = _read(store, config.data.prompts, config.prepare, rejected)
    if config.data.heldout:
        heldout = _read(store, config.data.heldout, config.prepare, rejected)
    else:
        questions, heldout = _split(questions, config)
    held_ids = {item.prompt_id for item in heldout}
    train = [item for item in questions if item.prompt_id not in held_ids]
    if len(train) < len(questions):
        say(
            f"prepare: {len(questions) - len(train)} train prompts are also held out and leave the train side"
        )
    if not train or not heldout:
        raise DataError(
            "no prompts are left",
            where=config.data.prompts,
            expected="at least one train and one held-out prompt",
            got=f"{len(train)} train, {len(heldout)} held out",
            remedy="Give more prompts or `data.heldout`",
        )

    reasons = dict(Counter(item.reason for item in rejected))
    if len(train) < len(questions):
        reasons["also held out"] = len(questions) - len(train)
    rows_in = len(questions) + len(rejected) + (len(heldout) if config.data.heldout is None else 0)

    def write(part: str, rows: list[Row], extra: dict[str, Any]) -> Manifest:
        prefix = f"{uri}/{part}"
        objects = [write_rows(store, prefix, rows)] if rows else []
        if extra and rejected:
            objects.append(write_rows(store, prefix, rejected, name="rejected-00000"))
        return commit(
            store,
            Manifest(
                stage="prepare",
                kind=part,
                name=part,
                uri=prefix,
                objects=tuple(objects),
                inputs=inputs,
                config_hash=config_hash,
                code_version=code_version("prepare"),
                num_rows=len(rows),
                wall_seconds=time.monotonic() - started,
                **extra,
            ),
        )

    gold = [
        GoldAnswer(prompt_id=item.prompt_id, answer=item.answer)
        for item in [*train, *heldout]
        if item.answer is not None
    ]
    say(
        f"prepare: {len(train)} train prompts, {len(heldout)} held out, {len(gold)} gold answers kept apart, "
        f"{len(rejected)} rows set aside"
    )
    return Prepared(
        prompts=write(
            "prompts",
            [Prompt(prompt_id=item.prompt_id, prompt=item.prompt) for item in train],
            {"num_input_rows": rows_in, "rejected": reasons},
        ),
        heldout=write(
            "heldout", [Prompt(prompt_id=item.prompt_id, prompt=item.prompt) for item in heldout], {}
        ),
        gold=write("gold", list(gold), {}),
    )


def _content_hash(store: Store, uri: str) -> str:
    """What stands for a data file in the stage's inputs."""
    item = store.stored(uri)
    if item is None:
        raise DataError("no such data set", where=uri, remedy="Check `data.prompts` and `data.heldout`")
    return digest([item.sha256 or uri, item.bytes])


def _split(questions: list[Question], config: Config) -> tuple[list[Question], list[Question]]:
    """Hold out a part, chosen by a hash of seed and prompt: stable when rows are added."""

    def is_held(item: Question) -> bool:
        return int(row_id(config.seed, item.prompt_id), 16) / 16**16 < config.prepare.heldout_fraction

    return [q for q in questions if not is_held(q)], [q for q in questions if is_held(q)]


def _read(store: Store, uri: str, config: PrepareConfig, rejected: list[RejectedRow]) -> list[Question]:
    """The usable questions of one file, each prompt once; broken rows go to `rejected`."""
    questions: dict[str, Question] = {}
    broken = total = 0
    for number, raw in _raw_rows(store, uri):
        total += 1
        value, reason = _question(raw, config)
        if value is not None and value.prompt_id in questions:
            value, reason = None, "duplicate"
        if value is not None:
            questions[value.prompt_id] = value
            continue
        broken += reason != "duplicate"
        rejected.append(RejectedRow(where=f"{uri}, row {number}", reason=reason, row=_shown(raw)))
    if not total:
        raise DataError(
            "the data set is empty",
            where=uri,
            expected="rows with a field `prompt`",
            got="no rows",
            remedy="Check the file",
        )
    if broken > config.max_bad_fraction * total:
        first = next(item for item in rejected if item.where.startswith(uri) and item.reason != "duplicate")
        raise DataError(
            "too many broken rows",
            where=first.where,
            expected=f"at most {config.max_bad_fraction:.0%} (prepare.max_bad_fraction)",
            got=f"{broken} of {total}, the first: {first.reason}: {first.row[:60]}",
            remedy="Mend the file, each row needs a text `prompt` and may have an `answer`",
        )
    return list(questions.values())


def _raw_rows(store: Store, uri: str) -> Iterator[tuple[int, bytes | dict[str, Any]]]:
    """Numbered rows of a JSONL file (as bytes) or of a Parquet file (as dicts)."""
    item = store.stored(uri)
    if item is None:
        raise DataError("no such data set", where=uri, remedy="Check `data.prompts` and `data.heldout`")
    with tempfile.TemporaryDirectory() as folder:
        path = store.read_file(item, Path(folder) / "data")
        if not uri.endswith(".parquet"):
            with path.open("rb") as file:
                yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
            return
        try:
            table = pq.ParquetFile(path)
            batches = (batch.to_pylist() for batch in table.iter_batches())
            yield from enumerate(chain.from_iterable(batches), 1)
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            raise DataError(
                "not a Parquet file", where=uri, got=str(error), remedy="Write it again"
            ) from error


def _question(raw: bytes | dict[str, Any], config: PrepareConfig) -> tuple[Question | None, str]:
    """One row as a question, or None and the reason."""
    value: Any = raw
    if isinstance(raw, bytes):
        try:
            value = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError:
            return None, "not UTF-8"
        except (json.JSONDecodeError, RecursionError):
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
    if len(prompt) > config.max_prompt_chars:
        return None, "prompt too long"
    if isinstance(answer, bool) or not isinstance(answer, str | int | float | None):
        return None, "answer not a text or number"
    return Question(row_id(prompt), prompt, None if answer is None else str(answer)), ""


def _shown(raw: bytes | dict[str, Any]) -> str:
    """A row as text for people, cut."""
    text = raw.decode("utf-8", errors="replace") if isinstance(raw, bytes) else repr(raw)
    return text.strip()[:500]
