"""The inputs of `make demo-smollm2`: a real model, one cut from it, and questions with two sides."""

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from examples.smollm2.inputs import KEPT_LAYERS, make
from limbeck.models import faults
from limbeck.run_file import load_run_file


def test_the_inputs_are_what_the_run_file_names_and_load_as_any_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "smollm2"
    make(folder)
    made = {path.name for path in folder.iterdir()}
    run_file = load_run_file(Path("examples/smollm2/run.yaml"))
    named = {run_file.prompts, run_file.heldout, run_file.teacher, run_file.student}
    assert {f"build/smollm2/{name}" for name in made} == named

    sides = [
        {json.loads(line)["prompt"] for line in (folder / name).read_text().splitlines()}
        for name in ("train.jsonl", "heldout.jsonl")
    ]
    assert not sides[0] & sides[1]
    assert len(sides[0]) > len(sides[1]) > 40

    assert not list(faults(folder / "teacher", "teacher")) + list(faults(folder / "student", "student"))
    tokenizer = AutoTokenizer.from_pretrained(folder / "teacher")
    question = [{"role": "user", "content": "What is the capital of France? Reply in one short sentence."}]
    ids = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=False
    )
    said = {}
    for role in ("teacher", "student"):
        model = AutoModelForCausalLM.from_pretrained(folder / role, dtype=torch.float32)
        with torch.inference_mode():
            said[role] = tokenizer.decode(
                model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
            )
    assert len(model.model.layers) == len(KEPT_LAYERS)
    assert "Paris" in said["teacher"]
    assert said["student"] != said["teacher"]
