"""An engine, real vLLM, that is killed in mid-generation: the stage goes on."""

import os
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from limbeck.config import ModelConfig, parse_config
from limbeck.engine_process import EngineProcess
from limbeck.records import Completion
from limbeck.rows import read_rows
from limbeck.sampling import Sample, SampleRequest
from limbeck.stages import generate
from limbeck.stages.prepare import Prepared
from limbeck.storage import Store
from tests import tiny
from tests.engines import ENGINE

pytestmark = pytest.mark.usefixtures("forked_engines")


class Killed(EngineProcess):
    """Is killed by its process id after some answers."""

    after = (30, 41, 90)
    count = 0

    def stream(self, requests: Iterable[tuple[int, SampleRequest]]) -> Iterator[tuple[int, Sample]]:
        for item in super().stream(requests):
            self.count += 1
            if self.count in self.after:
                os.kill(self.pid, signal.SIGKILL)
            yield item


def test_killed_in_mid_generation_everything_completes_no_row_is_lost_and_none_is_there_twice(
    store: Store, work_uri: str, tmp_path: Path, prepared: Prepared
) -> None:
    folder = tiny.checkpoint(tmp_path / "tiny", width=256)
    config = parse_config(
        {
            "generate": {"teacher": {"samples_per_prompt": 5, "max_tokens": 30}, "rows_per_part": 50},
            "engine": ENGINE.model_dump() | {"max_num_seqs": 16},
        }
    )

    def run(kind: type[EngineProcess], prefix: str) -> list[Completion]:
        made = generate.run(
            prepared.prompts,
            "model",
            lambda: kind(folder, ModelConfig(dtype="float32"), config.engine),
            config,
            store,
            f"{work_uri}/{prefix}",
            role="teacher",
        )
        assert not made.rejected
        return read_rows(store, made, Completion)

    rows = run(Killed, "killed")
    assert set(Counter(row.completion_id for row in rows).values()) == {1}
    assert len(rows) == prepared.prompts.num_rows * 5
    assert rows == run(EngineProcess, "unbroken")
