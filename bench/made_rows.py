"""Rows of realistic size for measurements, put into the store in parts as the stages write them."""

import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from limbeck.manifest import Manifest, commit
from limbeck.records import (
    Completion,
    Decoding,
    EvalResult,
    GoldAnswer,
    Judgement,
    Prompt,
    Row,
    Source,
    row_id,
)
from limbeck.rows import write_rows
from limbeck.storage import Store, StoredObject

ROWS_PER_PART = 2000
"""As `generate` and `judge` write them by default."""
NUM_SHARDS = 4
TEMPERATURES = (0.3, 0.7, 1.0)
WORDS = [f"{first}{middle}{last}" for first in "bcdfgklmnprst" for middle in "aeiou" for last in "lmnrst"]
HISTORY = '{"update": 1, "ppo/score": 0.5, "ppo/batch_agreement": 0.6}\n'


@dataclass(frozen=True)
class Maker:
    """Puts made rows into the store, the same ones for the same seed."""

    store: Store
    work_uri: str
    rng: random.Random
    prompt_chars: int = 300
    text_chars: int = 400

    def text(self, num_chars: int) -> str:
        """Words of about so many characters; they compress like words do."""
        return " ".join(self.rng.choices(WORDS, k=num_chars // 4))

    def data_set(self, num_rows: int, name: str = "data") -> str:
        """A JSONL file of prompts; 1% are there twice and 0.5% are broken. Its URI."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / "data.jsonl"
            with path.open("w", encoding="utf-8") as file:
                prompt = self.text(self.prompt_chars)
                for number in range(num_rows):
                    prompt = prompt if number % 100 == 1 else self.text(self.prompt_chars)
                    row = {"prompt": None if number % 200 == 7 else prompt, "answer": number % 1000}
                    file.write(json.dumps(row) + "\n")
            uri = f"{self.work_uri}/in/{name}.jsonl"
            self.store.write_file(path, uri)
        return uri

    def prompts(self, num_prompts: int, kind: str = "prompts") -> Manifest:
        """Prompts as `prepare` gives them."""
        rows = (
            Prompt(prompt_id=row_id(kind, number), prompt=self.text(self.prompt_chars))
            for number in range(num_prompts)
        )
        return self.manifest("prepare", kind, kind, rows, rows_per_part=100_000)

    def gold(self, *num_prompts: tuple[str, int]) -> Manifest:
        """A gold answer of each prompt of several kinds."""
        rows = (
            GoldAnswer(prompt_id=row_id(kind, number), answer=str(number % 1000))
            for kind, count in num_prompts
            for number in range(count)
        )
        return self.manifest("prepare", "gold", "gold", rows, rows_per_part=100_000)

    def completions(self, source: Source, num_prompts: int, num_samples: int) -> tuple[Manifest, ...]:
        """Completions, 60% of them right, in shards."""
        return tuple(
            self.manifest(
                "generate", source, "completions", self._completions(source, shard, num_prompts, num_samples)
            )
            for shard in range(NUM_SHARDS)
        )

    def judgements(self, source: Source, num_prompts: int, num_samples: int) -> tuple[Manifest, ...]:
        """A judgement of each of these completions, mostly a right one."""

        def rows(shard: int) -> Iterator[Judgement]:
            for number in range(shard, num_prompts, NUM_SHARDS):
                prompt_id = row_id("prompts", number)
                for index in range(num_samples):
                    yield Judgement(
                        completion_id=row_id(prompt_id, source, index),
                        prompt_id=prompt_id,
                        p_correct=self.rng.betavariate(3, 2),
                    )

        return tuple(
            self.manifest("judge", "judge", "judgements", rows(shard)) for shard in range(NUM_SHARDS)
        )

    def results(self, name: str, num_prompts: int, num_samples: int) -> Manifest:
        """Held-out answers of one model, one greedy and some sampled, 60% of them right."""

        def rows() -> Iterator[EvalResult]:
            decodings: tuple[tuple[Decoding, int], ...] = (("greedy", 1), ("sampled", num_samples))
            for decoding, samples in decodings:
                for number in range(num_prompts):
                    for index in range(samples):
                        right = self.rng.random() < 0.6
                        yield EvalResult(
                            prompt_id=row_id("heldout", number),
                            name=name,
                            decoding=decoding,
                            sample_index=index,
                            text=self.text(self.text_chars),
                            answer=str(number % 1000 if right else 0),
                            correct=right,
                            num_tokens=100,
                            finish_reason="stop",
                        )

        return self.manifest("evaluate", name, "results", rows(), rows_per_part=500)

    def checkpoint(self, stage: str, name: str) -> Manifest:
        """A checkpoint of two small files."""
        uri = f"{self.work_uri}/{stage}/{name}"
        with TemporaryDirectory() as folder:
            Path(folder, "config.json").write_text("{}", encoding="utf-8")
            Path(folder, "history.jsonl").write_text(HISTORY, encoding="utf-8")
            objects = self.store.write_folder(Path(folder), uri)
        return self._commit(stage, name, "checkpoint", uri, objects=objects)

    def manifest(
        self, stage: str, name: str, kind: str, rows: Iterable[Row], rows_per_part: int = ROWS_PER_PART
    ) -> Manifest:
        """Write rows in parts, and the manifest."""
        uri = f"{self.work_uri}/{stage}/{kind}-{name}-{self.rng.randrange(16**8):08x}"
        rows = iter(rows)
        objects: list[StoredObject] = []
        while chunk := list(islice(rows, rows_per_part)):
            objects.append(write_rows(self.store, uri, chunk, name=f"part-{len(objects):05d}"))
        num_rows = sum(item.rows for item in objects)
        return self._commit(stage, name, kind, uri, objects=objects, num_rows=num_rows)

    def _completions(
        self, source: Source, shard: int, num_prompts: int, num_samples: int
    ) -> Iterator[Completion]:
        for number in range(shard, num_prompts, NUM_SHARDS):
            prompt_id = row_id("prompts", number)
            for index in range(num_samples):
                wrong = self.rng.random() > 0.6
                answer = str((number + wrong * self.rng.randrange(1, 20)) % 1000)
                yield Completion(
                    completion_id=row_id(prompt_id, source, index),
                    prompt_id=prompt_id,
                    source=source,
                    text=f"{self.text(self.text_chars)} = {answer}",
                    answer=answer,
                    temperature=TEMPERATURES[index % 3],
                    sample_index=index,
                    seed=self.rng.randrange(2**31),
                    logprob=-self.rng.random() * 100,
                    num_tokens=100,
                    finish_reason="stop" if self.rng.random() < 0.95 else "length",
                )

    def _commit(self, stage: str, name: str, kind: str, uri: str, **values: object) -> Manifest:
        made: dict[str, object] = {"stage": stage, "name": name, "kind": kind, "uri": uri, "inputs": {}}
        made |= {"config_hash": "made", "code_version": "made", **values}
        return commit(self.store, Manifest.model_validate(made))
