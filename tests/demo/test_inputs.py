"""The demo's inputs: made once for a seed, with gold answers that no prompt shows."""

import json
from pathlib import Path

from limbeck.demo import inputs, task
from limbeck.run_file import load_run_file
from limbeck.storage import Store

WORK_URI = load_run_file(Path(inputs.__file__).with_name("run.yaml")).work_uri


def test_inputs_that_are_there_are_not_made_again(store: Store) -> None:
    noted = {name: f"s3://test/{name}" for name in ("prompts", "heldout", "teacher", "student")}
    store.make_bucket(WORK_URI)
    store.write_bytes(inputs.address(WORK_URI, 77), json.dumps(noted).encode())

    staged = inputs.stage_demo(77, store)

    assert {name: getattr(staged, name) for name in noted} == noted
    assert (staged.config.seed, staged.config.teacher.dtype) == (77, "float32")


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
