"""Open questions from end to end on one machine: real engines, real store, tiny models without judgement."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck.storage import Store
from tests import tiny
from tests.test_pipeline import limbeck


def run_file(folder: Path, work_uri: str) -> Path:
    """A run file for prompts without answers and two checkpoint folders."""
    random.seed(0)
    letters = "abcdefghijklmnopqrstuvw"
    rows = [json.dumps({"prompt": f"sum {' '.join(random.sample(letters, 4))}"}) for _ in range(120)]
    (folder / "prompts.jsonl").write_text("\n".join(rows))
    tiny.checkpoint(folder / "teacher", seed=0, width=64)
    tiny.checkpoint(folder / "student", seed=1)
    settings = {
        "work_uri": work_uri,
        "num_evaluate_shards": 2,
        "prompts": str(folder / "prompts.jsonl"),
        "teacher": str(folder / "teacher"),
        "student": str(folder / "student"),
        "config": {
            "teacher": {"dtype": "float32"},
            "student": {"dtype": "float32"},
            "task": {"kind": "open"},
            "engine": {"max_model_len": 64, "kv_cache_mib": 64, "enforce_eager": True},
            "prepare": {"heldout_fraction": 0.3, "near_duplicates": None},
            "generate": {
                "teacher": {"samples_per_prompt": 6, "max_tokens": 24},
                "student": {"samples_per_prompt": 4, "max_tokens": 24},
            },
            "judge": {"open_template": "judge {prompt} : {completion}"},
            "label": {"rule": "judge", "validation_prompts": 20},
            "sft": {"learning_rate": 3e-3, "num_epochs": 2, "batch_size": 16},
            "reward": {"learning_rate": 3e-3, "min_auc": 0.0, "evaluate_every": 5, "batch_size": 16},
            "ppo": {
                "num_updates": 3,
                "batch_size": 32,
                "max_tokens": 24,
                "evaluate_every": 2,
                "critic_warmup_updates": 1,
                "sampler": "transformers",
            },
            "evaluate": {"max_tokens": 24, "samples_per_prompt": 2},
            "report": {"num_resamples": 200},
        },
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def run(pipeline: str, path: Path, out: Path) -> tuple[str, dict[str, Any]]:
    """Run a pipeline; gives its output and its report."""
    process = limbeck("run", str(path), "--out", str(out), "--pipeline", pipeline)
    output, _ = process.communicate()
    assert process.returncode == 0, f"{output[-3000:]}\n{(out / 'run.log').read_text()[-5000:]}"
    return output, json.loads((out / "report.json").read_text())


@pytest.fixture(scope="module")
def finished(store: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run of `distill_open`."""
    folder = tmp_path_factory.mktemp("run")
    path = run_file(folder, "s3://test/open")
    output, report = run("distill_open", path, folder / "out")
    return {
        "run_file": path,
        "output": output,
        "report": report,
        "log": (folder / "out" / "run.log").read_text(),
    }


def test_it_runs_to_its_end_and_the_judge_measures(finished: dict[str, Any]) -> None:
    report = finished["report"]
    assert "judge student: " in finished["output"]
    assert "merge of evaluate(sft_selected): 105 rows in " in finished["log"]
    assert {row["name"] for row in report["rows"]} == {
        "teacher",
        "student",
        "sft_all",
        "sft_selected",
        "ppo_model",
        "policy",
    }
    assert {row["decoding"] for row in report["rows"]} == {"greedy", "sampled"}
    assert all(row["accuracy"] is not None and row["n"] == 35 for row in report["rows"])
    assert report["decision"]["headline"].startswith("By the teacher's judgement: ")
    assert report["labels"]["rule"] == "judge"
    assert report["fidelity"] == []
    planned = {(task["stage"], task["name"]) for task in report["plan"]["stages"]}
    made = {(stage["stage"], stage["name"]) for stage in report["stages"]}
    # Of the three outputs of `prepare`, which bear the time of the whole, one is planned.
    assert made - planned == {("prepare", "heldout"), ("prepare", "gold")}
    assert ("judge", "judge_student") in planned
    judged = [stage for stage in report["stages"] if stage["stage"] == "evaluate"]
    # Sampled answers, one word of a verdict on each.
    assert all(stage["completion_tokens"] > stage["rows_kept"] for stage in judged)


def test_both_sides_are_rewarded_by_judgements_and_no_agreement_chooses_the_policy(
    finished: dict[str, Any],
) -> None:
    report = finished["report"]
    assert set(report["reward"]["by_source"]) == {"teacher", "student"}
    assert all(figures["auc"] is not None for figures in report["reward"]["by_source"].values())
    (ppo,) = report["ppo"].values()
    assert (ppo["name"], ppo["picked"], ppo["validation_agreement"]) == ("ppo_model", True, None)
    assert [step["update"] for step in ppo["steps"] if step["validation_proxy"] is not None] == [0, 2, 3]
    assert all(step["agreement"] is None for step in ppo["steps"])


def test_any_models_can_be_compared_by_the_judgement_of_a_teacher(
    finished: dict[str, Any], tmp_path: Path
) -> None:
    given = yaml.safe_load(finished["run_file"].read_text())
    kept = {name: given[name] for name in ("work_uri", "config", "teacher")}
    models = {"models": [given["student"], given["teacher"]], "heldout": given["prompts"]}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(kept | models))
    _, report = run("evaluate", path, tmp_path / "out")
    assert {row["name"] for row in report["rows"]} == {"student", "teacher"}
    assert all(row["accuracy"] is not None and row["n"] == 120 for row in report["rows"])


def test_another_pipeline_refuses_open_questions_before_anything_runs(
    finished: dict[str, Any], tmp_path: Path
) -> None:
    process = limbeck(
        "run", str(finished["run_file"]), "--out", str(tmp_path / "out"), "--pipeline", "distill"
    )
    output, _ = process.communicate()
    assert process.returncode != 0
    assert "Run the pipeline distill_open" in output
    assert "] prepare" not in output
