"""What the report reads from manifests and histories."""

import pytest

from limbeck.errors import DataError
from limbeck.manifest import Manifest
from limbeck.report.model import PpoStep, RewardBin
from limbeck.report.training import parse_history, ppo_run, reward_report, stage_rows


def manifest(stage: str, name: str, rows_in: int, rows_out: int, rejected: dict[str, int]) -> Manifest:
    return Manifest(
        stage=stage,
        kind="made",
        name=name,
        uri=f"s3://w/{stage}",
        objects=(),
        inputs={},
        config_hash="c",
        code_version="v",
        num_input_rows=rows_in,
        num_rows=rows_out,
        rejected=rejected,
        wall_seconds=1.5,
    )


def test_reward_metrics_are_sorted_by_source_and_absent_ones_are_null() -> None:
    report = reward_report(
        {
            "reward/auc_student": 0.8,
            "reward/score_length_correlation_teacher": -0.1,
            "reward/auc_vote_share_0.75_1.0": 0.9,
            "reward/auc_vote_share_0.3_0.5": float("nan"),
            "reward/other": 3.0,
        }
    )
    assert report.by_source["student"].auc == 0.8
    assert report.by_source["student"].ece is None
    assert report.by_source["teacher"].auc is None
    assert report.by_source["teacher"].score_length_correlation == -0.1
    assert report.by_vote_share == (
        RewardBin(low=0.3, high=0.5, auc=None),
        RewardBin(low=0.75, high=1.0, auc=0.9),
    )


def test_history_takes_what_the_report_shows() -> None:
    lines = (
        b'{"update": 0.0, "ppo/validation_agreement": 0.6}\n'
        b'{"update": 1, "ppo/score": 0.5, "ppo/kl": NaN, "ppo/length": 2, "ppo/batch_agreement": 0.4}\n'
    )
    first, second = parse_history(lines, "s3://w/history.jsonl")
    assert first == PpoStep(update=0, validation_agreement=0.6)
    assert second == PpoStep(update=1, reward=0.5, length=2.0, agreement=0.4)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b'{"update": 1, "ppo/kl": -0.1, "ppo/kl_k3": 0.2}', -0.1),
        (b'{"update": 1, "ppo/kl": null, "ppo/kl_k3": 0.2}', 0.2),
        (b'{"update": 1, "ppo/kl": null, "ppo/kl_k3": null}', None),
    ],
    ids=["ppo and rloo", "grpo", "no penalty, so no reference"],
)
def test_the_kl_that_is_shown_is_the_estimate_that_an_algorithm_has(line: bytes, shown: float | None) -> None:
    (step,) = parse_history(line, "s3://w/history.jsonl")
    assert step.shown_kl == shown


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"ppo/score": 1}', b'{"update": 1, "ppo/kl": "much"}'])
def test_a_broken_history_names_file_and_line(line: bytes) -> None:
    with pytest.raises(DataError, match=r"s3://w/history\.jsonl, line 2"):
        parse_history(b'{"update": 1}\n' + line, "s3://w/history.jsonl")


def test_a_run_without_metrics_is_neither_measured_nor_stopped() -> None:
    run = ppo_run(manifest("ppo", "ppo_model", 0, 0, {}), [], picked=False)
    assert run.validation_agreement is None
    assert not run.stopped_by_monitor


def test_shards_are_added_up_and_other_names_are_not() -> None:
    rows = stage_rows(
        [
            manifest("generate", "teacher", 10, 90, {"prompt too long": 1}),
            manifest("generate", "teacher", 12, 110, {"prompt too long": 2, "other": 1}),
            manifest("generate", "student", 22, 200, {}),
        ]
    )
    assert [(row.name, row.num_parts, row.rows_in, row.rows_kept) for row in rows] == [
        ("teacher", 2, 22, 200),
        ("student", 1, 22, 200),
    ]
    assert rows[0].rejected == {"prompt too long": 3, "other": 1}
    assert rows[0].wall_seconds == 3.0
    assert [row.cost for row in rows] == [None, None]


def test_the_cost_of_shards_is_added_up_where_it_is_known() -> None:
    shards = [manifest("generate", "teacher", 10, 90, {}), manifest("generate", "teacher", 12, 110, {})]
    priced = [item.model_copy(update={"metrics": {"generate/cost": 1.25}}) for item in shards]
    others = [manifest("label", "labels", 10, 90, {})]
    assert [row.cost for row in stage_rows([*priced, *others])] == [2.5, None]
