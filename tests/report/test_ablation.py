"""The page of an ablation: corrected differences, sweeps, counts; and texts of others stay texts."""

import re

import numpy as np
import pytest

from limbeck.manifest import Manifest
from limbeck.report.ablation import AblationReport, differences, pages, shared, sweeps
from limbeck.report.accuracy import PromptScores, accuracy_rows
from limbeck.report.model import RowDecoding

EVIL = "ppo_model@reward.source_weight=0.25</th><script>alert(1)</script>|`x`"


def manifest(stage: str, name: str, key: str, rows: int = 10, **fields: object) -> Manifest:
    values: dict[str, object] = {
        "stage": stage,
        "kind": "completions",
        "name": name,
        "uri": f"s3://work/{stage}/{key}",
        "objects": (),
        "inputs": {"prompts": "1"},
        "config_hash": key,
        "code_version": "1",
        "num_rows": rows,
    }
    return Manifest.model_validate(values | fields)


@pytest.fixture
def scores() -> PromptScores:
    rng = np.random.default_rng(1)
    chances = {
        "teacher": 0.5,
        "sft_selected": 0.5,
        "ppo_model": 0.7,
        "ppo_model@reward.source_weight=0": 0.55,
        "ppo_model@label.noise=0.4": 0.6,
        EVIL: 0.5,
    }
    found: dict[tuple[str, RowDecoding], dict[str, float]] = {}
    for name, chance in chances.items():
        found[name, "sampled"] = {f"p{n}": float(rng.random() < chance) for n in range(200)}
    return found


def report(scores: PromptScores) -> AblationReport:
    rows = accuracy_rows(scores, 200, seed=1)
    models = [
        manifest("reward", "reward", "a", metrics={"reward/auc_student": 0.9}),
        manifest("reward", "reward@label.noise=0.4", "b", metrics={"reward/auc_student": 0.6}),
    ]
    generated = [manifest("generate", "teacher", "a"), manifest("generate", "student", "b", rows=5)]
    return AblationReport(
        rows=rows,
        differences=differences(scores, 200, seed=1),
        sweeps=sweeps(rows, models, {"reward.source_weight": 0.5, "label.noise": 0.0}),
        shared=shared([*generated, generated[0], *models]),
        completions=15,
        generated_twice=0,
        seed=1,
        num_resamples=200,
    )


def test_every_row_is_compared_with_both_baselines_and_corrected_for_their_number(
    scores: PromptScores,
) -> None:
    found = differences(scores, 200, seed=1)
    assert len(found) == 6 * 2 - 2
    assert all(item.p is not None and item.corrected is not None for item in found)
    smallest = min(found, key=lambda item: item.p or 0.0)
    assert smallest.corrected == pytest.approx(min(1.0, len(found) * (smallest.p or 0.0)))
    assert all((item.corrected or 0.0) >= (item.p or 0.0) for item in found)
    for item in found:
        assert item.simultaneous is not None
        assert item.comparison.interval is not None
        assert item.simultaneous[0] < item.comparison.interval[0]
        assert item.simultaneous[1] > item.comparison.interval[1]


def test_rows_of_other_prompts_and_of_one_prompt_do_not_disturb_the_intervals_of_the_others(
    scores: PromptScores,
) -> None:
    alone = differences(scores, 200, seed=1)
    lone: PromptScores = {("ppo_mixed", "sampled"): {"p0": 1.0}}
    found = {
        (item.comparison.a, item.comparison.b): item for item in differences({**scores, **lone}, 200, seed=1)
    }
    assert found["ppo_mixed", "ppo_model"].simultaneous is None
    assert [found[item.comparison.a, item.comparison.b].simultaneous for item in alone] == [
        item.simultaneous for item in alone
    ]


def test_a_sweep_holds_its_variants_and_the_run_itself_in_order(scores: PromptScores) -> None:
    by_setting = {sweep.setting: sweep for sweep in report(scores).sweeps}
    noise, weight = by_setting["label.noise"], by_setting["reward.source_weight"]
    assert [(item.value, item.row, item.auc) for item in noise.points] == [
        (0.0, "ppo_model", 0.9),
        (0.4, "ppo_model@label.noise=0.4", 0.6),
    ]
    assert [item.value for item in weight.points] == [0.0, 0.5]


def test_shared_outputs_are_counted_once() -> None:
    first, other = manifest("generate", "teacher", "a"), manifest("generate", "student", "b", rows=5)
    (counted,) = shared([first, other, first])
    assert (counted.outputs, counted.rows) == (2, 15)


def test_the_pages_show_every_row_and_no_markup_of_others(scores: PromptScores) -> None:
    made = pages(report(scores))
    html, markdown = made["ablation.html"], made["ablation.md"]
    assert AblationReport.model_validate_json(made["ablation.json"]) == report(scores)
    for text in (html, markdown):
        for name in ("teacher", "sft_selected", "ppo_model@label.noise=0.4"):
            assert name in text
        assert "<script" not in text
        assert re.search(r"15\b.* completions.* 0 of them twice", text)
        assert text.count("all: ") == 6 * 2 - 2
    assert html.count("<svg") == 2
    assert "|`x`" not in markdown
    tables = [line for line in markdown.splitlines() if line.startswith("|")]
    against = [line for line in tables if line.count("|") == 4]
    assert against


def test_the_same_report_gives_the_same_bytes(scores: PromptScores) -> None:
    assert pages(report(scores)) == pages(report(scores))
