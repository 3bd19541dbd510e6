"""From checkpoint manifests to what the report says of reward model, PPO runs and stages."""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from pydantic import ValidationError

from limbeck.errors import DataError
from limbeck.manifest import Manifest
from limbeck.metrics import ReliabilityBin
from limbeck.report import spent
from limbeck.report.model import (
    PpoRun,
    PpoStep,
    Provenance,
    RewardBin,
    RewardFigures,
    RewardReport,
    StageRow,
)

SOURCES = ("teacher", "student")
VOTE_SHARE_METRIC = re.compile(
    f"reward/({'|'.join(RewardFigures.model_fields)})_vote_share_([\\d.]+)_([\\d.]+)"
)


def reward_report(
    metrics: Mapping[str, float], reliability: Mapping[str, tuple[ReliabilityBin, ...]] = MappingProxyType({})
) -> RewardReport:
    """Sort the metrics of the reward model's manifest by source and by vote share."""
    by_share: dict[tuple[float, float], dict[str, float]] = {}
    for name, value in metrics.items():
        if match := VOTE_SHARE_METRIC.fullmatch(name):
            by_share.setdefault((float(match[2]), float(match[3])), {})[match[1]] = value
    return RewardReport(
        by_source={
            source: RewardFigures(
                **{name: metrics.get(f"reward/{name}_{source}") for name in RewardFigures.model_fields}
            )
            for source in SOURCES
        },
        by_vote_share=tuple(
            RewardBin(low=low, high=high, **found) for (low, high), found in sorted(by_share.items())
        ),
        reliability=dict(reliability),
    )


def ppo_run(manifest: Manifest, history: Sequence[PpoStep], *, picked: bool) -> PpoRun:
    """One PPO run from its manifest and its history."""
    return PpoRun(
        name=manifest.name,
        picked=picked,
        validation_agreement=manifest.metrics.get("ppo/validation_agreement"),
        proxy_length_correlation=manifest.metrics.get("ppo/proxy_length_correlation"),
        stopped_by_monitor=bool(manifest.metrics.get("ppo/stopped_by_monitor", 0)),
        steps=tuple(history),
    )


def parse_history(lines: bytes, where: str) -> list[PpoStep]:
    """The rounds of a PPO history, one JSON object a line.

    Raises:
        DataError: naming the first line that is not one.
    """
    steps = []
    for number, line in enumerate(lines.splitlines(), 1):
        try:
            steps.append(PpoStep.model_validate_json(line))
        except ValidationError as error:
            raise DataError(
                "not a line of a PPO history",
                where=f"{where}, line {number}",
                expected='JSON such as {"update": 1, "ppo/score": 0.5}',
                got=line[:80].decode(errors="replace"),
                remedy="Run the stage `ppo` again",
            ) from error
    return steps


def stage_rows(manifests: Sequence[Manifest]) -> tuple[StageRow, ...]:
    """What each stage did; manifests of one stage and name (shards) are added up."""
    groups: dict[tuple[str, str], list[Manifest]] = {}
    for manifest in manifests:
        groups.setdefault((manifest.stage, manifest.name), []).append(manifest)
    rows = []
    for (stage, name), parts in groups.items():
        rejected: dict[str, int] = {}
        for part in parts:
            for reason, number in part.rejected.items():
                rejected[reason] = rejected.get(reason, 0) + number
        rows.append(
            StageRow(
                stage=stage,
                name=name,
                num_parts=len(parts),
                wall_seconds=sum(part.wall_seconds for part in parts),
                rows_in=sum(part.num_input_rows for part in parts),
                rows_kept=sum(part.num_rows for part in parts),
                rejected=rejected,
                cost=spent.cost(parts),
                gpu_hours=spent.gpu_hours(parts),
                prompt_tokens=spent.tokens(parts, "prompt"),
                completion_tokens=spent.tokens(parts, "completion"),
            )
        )
    return tuple(rows)


def provenance(manifests: Sequence[Manifest]) -> tuple[Provenance, ...]:
    """Where each input came from, with its hashes."""
    return tuple(
        Provenance(
            stage=manifest.stage,
            name=manifest.name,
            uri=manifest.uri,
            content_hash=manifest.content_hash,
            config_hash=manifest.config_hash,
            code_version=manifest.code_version,
        )
        for manifest in manifests
    )
