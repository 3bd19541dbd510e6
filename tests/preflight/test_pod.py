"""Shared memory and scratch space of the machine that preflight runs on."""

from dataclasses import replace
from pathlib import Path

import pytest

from limbeck.config import Config
from limbeck.preflight import Asked
from limbeck.preflight.pod import check_scratch, check_shared_memory, scratch_bytes
from tests.preflight.conftest import STAGES, lines

RUN = Asked(work_uri="s3://b/work", stages=STAGES)
SPLIT = Config.model_validate({"engine": {"tensor_parallel_size": 2}})
SMALL = Path("/proc")  # a file system of size zero


def test_an_engine_that_is_split_needs_shared_memory() -> None:
    (line,) = lines(check_shared_memory(RUN, SPLIT, SMALL))
    assert line.startswith("error: too little shared memory for an engine that is split over GPUs")
    assert "expected at least 1024 MiB for an engine of 2 GPUs, got 0 MiB" in line
    assert "`limbeck compile --shm 16Gi`" in line


@pytest.mark.parametrize(
    ("asked", "config", "folder"),
    [
        (RUN, Config(), SMALL),
        (replace(RUN, stages=["prepare", "sft"]), SPLIT, SMALL),
        (RUN, SPLIT, Path("/")),
        (RUN, SPLIT, Path("/no/such/folder")),
    ],
    ids=["not split", "nothing sampled", "enough", "no such file system"],
)
def test_otherwise_shared_memory_is_no_matter(asked: Asked, config: Config, folder: Path) -> None:
    assert check_shared_memory(asked, config, folder) == []


def test_scratch_space_is_counted_in_copies_of_checkpoints() -> None:
    stored = {"teacher": 70, "student": 10, "reward": 70}
    trained = {"student": 100, "reward": 700}
    assert scratch_bytes(RUN, stored, trained) == {
        "generate": 70,
        "judge": 70,
        "evaluate": 70,
        "sft": 2 * 10 + 100,
        "reward": 3 * 70 + 700,
        "ppo": 4 * 10 + 70 + 100 + 700,
    }
    judged = replace(RUN, ppo_rewards=["model", "judge"])
    more = scratch_bytes(judged, stored, trained)["ppo"] - scratch_bytes(RUN, stored, trained)["ppo"]
    assert more == stored["teacher"], "the judge's weights"
    assert scratch_bytes(replace(RUN, stages=["prepare", "evaluate"]), stored, trained) == {"evaluate": 70}


def test_a_disk_that_is_too_small_is_a_warning_for_the_stage_that_needs_most() -> None:
    (line,) = lines(check_scratch({"sft": 1 << 61, "ppo": 1 << 62, "label": 1}))
    assert line.startswith("warning: little scratch space for stage ppo in /")
    assert f"expected {1 << 32} GiB free, got " in line
    assert check_scratch({"sft": 1}) == []
    assert check_scratch({}) == []
