"""What the GPUs were used for: hours and tokens of each stage, and what they gave."""

from collections.abc import Sequence

from limbeck.config import GPU_STAGES
from limbeck.manifest import Manifest
from limbeck.report.model import Accepted, StageRow

HOUR = 3600
ANSWERING = (("generate", "teacher"), ("judge", "judge"))
"""Whose GPU-hours the accepted completions are divided by."""
LEARNT = ("sft", "sft_selected")


def gpu_hours(parts: Sequence[Manifest]) -> float | None:
    """Of all shards of a stage; None of stages without GPUs, and where a manifest does not tell."""
    known = [part.wall_seconds * part.num_gpus for part in parts if part.num_gpus is not None]
    if len(known) < len(parts) or any(part.stage not in GPU_STAGES for part in parts):
        return None
    return sum(known) / HOUR


def tokens(parts: Sequence[Manifest], kind: str) -> int | None:
    """Prompt or completion tokens of all shards of a stage, those of verdicts on held-out answers with them.

    None where a manifest does not tell.
    """
    counted = [part.metrics.get(f"{part.stage}/{kind}_tokens") for part in parts]
    known = [number for number in counted if number is not None]
    if not known or len(known) < len(parts):
        return None
    return int(sum(known) + sum(part.metrics.get(f"{part.stage}/judge_{kind}_tokens", 0.0) for part in parts))


def cost(parts: Sequence[Manifest]) -> float | None:
    """What a black box took in all shards of a stage; None where none was asked."""
    names = ("cost", "judge_cost")
    found = [part.metrics.get(f"{part.stage}/{name}") for part in parts for name in names]
    known = [amount for amount in found if amount is not None]
    return sum(known) if known else None


def accepted(stages: Sequence[StageRow]) -> Accepted | None:
    """Completions that SFT has learnt from, for each GPU-hour of answering and judging.

    None without such stages or GPUs, and where a manifest does not tell its GPUs.
    """
    by_name = {(row.stage, row.name): row for row in stages}
    learnt = by_name.get(LEARNT)
    taken = [by_name[key].gpu_hours for key in ANSWERING if key in by_name]
    known = [hours for hours in taken if hours is not None]
    if learnt is None or not known or len(known) < len(taken) or not sum(known):
        return None
    return Accepted(
        completions=learnt.rows_kept, gpu_hours=sum(known), per_gpu_hour=learnt.rows_kept / sum(known)
    )
