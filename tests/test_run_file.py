"""What a run file says reaches the pipeline: a null in it too."""

from pathlib import Path

import yaml

from limbeck.compiled import find, load
from limbeck.config import parse_config
from limbeck.run_file import arguments, load_run_file


def test_the_tasks_get_the_settings_of_the_run_file_nulls_too(tmp_path: Path) -> None:
    settings = {
        "sft": {"micro_batch_size": None},
        "prepare": {"near_duplicates": None, "decontaminate_ngram": None},
        "engine": {"kv_cache_mib": 64},
    }
    given = {"work_uri": "s3://b/w", "prompts": "p.jsonl", "teacher": "t", "student": "s", "config": settings}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(given))
    run_file = load_run_file(path)
    values = arguments(run_file, load(find("distill")))
    assert values["config"]["sft"]["micro_batch_size"] == "null"
    assert "null" not in values["config"]["reward"].values()
    assert "None" not in repr(values), "Kubeflow's SDK takes no null in a parameter"
    assert parse_config(values["config"]) == run_file.config
    assert run_file.config.prepare.near_duplicates is None
