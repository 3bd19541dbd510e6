"""The demo's inputs: made once for a seed, with gold answers that no prompt shows."""

import json
from pathlib import Path

import pytest

from limbeck.compiled import find, load
from limbeck.demo import inputs, task
from limbeck.errors import ConfigError
from limbeck.run_file import RunFile, arguments, load_run_file
from limbeck.storage import Store

RUN_FILE = Path(inputs.__file__).with_name("run.yaml")
WORK_URI = load_run_file(RUN_FILE).work_uri


def test_inputs_that_are_there_are_not_made_again(store: Store) -> None:
    noted = {name: f"s3://test/{name}" for name in ("prompts", "heldout", "teacher", "student")}
    store.make_bucket(WORK_URI)
    store.write_bytes(inputs.address(WORK_URI, 77), json.dumps(noted).encode())

    staged = inputs.stage_demo(77, store)

    assert {name: getattr(staged, name) for name in noted} == noted
    assert (staged.config.seed, staged.config.teacher.dtype) == (77, "float32")
    ablation = inputs.stage_demo(77, store, ablation=True)
    assert ablation == staged.model_copy(update=inputs.ABLATION)


def test_the_ablation_of_the_demo_is_the_demo_with_sweeps_that_its_pipeline_takes() -> None:
    given = json.loads(load_run_file(RUN_FILE).model_dump_json(exclude_unset=True)) | inputs.ABLATION
    wanted = RunFile.model_validate(given)
    taken = arguments(wanted, load(find("ablation")))
    assert taken["reward_variants"] == ["reward.source_weight=0", "reward.source_weight=1"]
    assert taken["noise_variants"] == ["label.noise=0.2", "label.noise=0.4"]
    assert "model" in taken["ppo_rewards"]
    with pytest.raises(ConfigError, match="unknown parameter `reward_variants`"):
        arguments(wanted, load(find("distill")))


def test_another_seed_has_another_address() -> None:
    assert inputs.address(WORK_URI, 1) != inputs.address(WORK_URI, 2)
    assert inputs.address(WORK_URI, 1) == inputs.address(WORK_URI, 1)


def test_problems_are_written_with_their_answers(tmp_path: Path) -> None:
    split = task.make_split(3, num_train=20, num_heldout=5)
    inputs.write_problems(split.train, tmp_path / "train.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 20
    assert all(set(row) == {"prompt", "answer"} for row in rows)
    assert rows[0] == {"prompt": split.train[0].prompt, "answer": split.train[0].answer}
