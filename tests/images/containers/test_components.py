"""Compiled components run in our images by their exact commands, and give the right manifests."""

import json
import random
from typing import Any

import pytest

from limbeck.manifest import Manifest
from limbeck.records import Completion, LabelledCompletion, Prompt
from limbeck.rows import read_rows
from limbeck.storage import Store
from tests import tiny
from tests.images.launcher import Pod

WORK = "s3://test/images"
CONFIG = {
    "teacher": {"dtype": "float32"},
    "student": {"dtype": "float32"},
    "task": {"answer_pattern": "([a-w])"},
    "engine": {"max_model_len": 64, "kv_cache_mib": 64, "enforce_eager": True},
    "prepare": {"heldout_fraction": 0.2},
    "generate": {"teacher": {"samples_per_prompt": 6, "max_tokens": 8}},
    "label": {"rule": "majority", "min_vote_share": 0.1, "validation_prompts": 5},
    "sft": {"learning_rate": 3e-3, "num_epochs": 1, "batch_size": 16},
}

NUM_PROMPTS = 40
# All that podman shows as changed in a container's root file system when nothing was written there.
MOUNT_POINTS = {"C /etc", "A /s3"}


@pytest.fixture(scope="module")
def finished(
    pod: Pod, tools: str, engines: str, store: Store, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Manifest]]:
    """Preflight and four stages, each fed with what came before it; manifests by stage and output."""
    folder = tmp_path_factory.mktemp("data")
    random.seed(0)
    letters = "abcdefghijklmnopqrstuvw"
    prompts = [f"sum {' '.join(random.sample(letters, 4))}" for _ in range(NUM_PROMPTS)]
    rows = [{"prompt": prompt, "answer": "c"} for prompt in prompts]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    store.write_file(folder / "prompts.jsonl", f"{WORK}/in/prompts.jsonl")
    for path in tiny.checkpoint(folder / "model", width=64).iterdir():
        store.write_file(path, f"{WORK}/in/model/{path.name}")

    made: dict[str, dict[str, Manifest]] = {}

    def run(stage: str, image: str, inputs: dict[str, Manifest], **parameters: Any) -> None:
        given = {"work_uri": WORK, "config": CONFIG} | parameters
        ended = pod.run_component(stage, image, given, inputs)
        assert ended.status == 0, ended.output[-5000:]
        assert ended.changes <= MOUNT_POINTS
        made[stage] = pod.outputs(stage)

    data, model = f"{WORK}/in/prompts.jsonl", f"{WORK}/in/model"
    stages = ["prepare", "generate", "label", "sft"]
    run("preflight", tools, {}, stages=stages, prompts=data, teacher=model, student=model)
    run("prepare", tools, {}, data=data)
    training = made["prepare"]["prompts"]
    run("generate", engines, {"prompts": training}, model=model)
    run("label", tools, {"prompts": training, "completions": made["generate"]["completions"]})
    run("sft", engines, {"labelled": made["label"]["labelled"]}, model=model)
    return made


def test_preflight_finds_nothing_wrong_from_inside_the_tools_image(
    finished: dict[str, dict[str, Manifest]], pod: Pod
) -> None:
    assert finished["preflight"] == {}
    values = pod.metadata("preflight")["parameterValues"]
    assert values["prepare_cpu"]
    assert values["sft_gpus"]


def test_prepare_splits_the_data_set_in_the_tools_image(
    finished: dict[str, dict[str, Manifest]], store: Store
) -> None:
    made = finished["prepare"]
    prompts, heldout = (read_rows(store, made[name], Prompt) for name in ("prompts", "heldout"))
    assert len({row.prompt for row in prompts + heldout}) == len(prompts) + len(heldout) == NUM_PROMPTS
    assert made["gold"].num_rows == NUM_PROMPTS
    assert all(row.prompt.startswith("sum ") for row in prompts)


def test_generate_samples_with_vllm_in_the_engines_image(
    finished: dict[str, dict[str, Manifest]], store: Store
) -> None:
    completions = read_rows(store, finished["generate"]["completions"], Completion)
    assert len(completions) == 6 * finished["prepare"]["prompts"].num_rows
    assert {row.temperature for row in completions} == {0.3, 0.7, 1.0}
    assert all(row.logprob is not None and row.logprob < 0 for row in completions)


def test_label_votes_in_the_tools_image(finished: dict[str, dict[str, Manifest]], store: Store) -> None:
    labelled = read_rows(store, finished["label"]["labelled"], LabelledCompletion)
    assert any(row.selected for row in labelled)
    assert {row.source for row in labelled} == {"teacher"}


def test_sft_trains_with_deepspeed_in_the_engines_image(
    finished: dict[str, dict[str, Manifest]], store: Store
) -> None:
    made = finished["sft"]["checkpoint"]
    assert made.name == "sft_selected"
    assert made.metrics["sft/loss"] > 0
    names = {item.uri.rpartition("/")[2] for item in made.objects}
    assert {"config.json", "model.safetensors", "tokenizer.json", "history.jsonl"} <= names
    assert store.sizes(made.uri)[made.objects[0].uri] == made.objects[0].bytes


def test_the_executor_leaves_its_metadata_where_the_launcher_reads_it(
    finished: dict[str, dict[str, Manifest]], pod: Pod
) -> None:
    (artifact,) = pod.metadata("generate")["artifacts"]["completions"]["artifacts"]
    assert artifact["uri"].startswith("s3://pipelines/root/")
    assert artifact["metadata"]["rows"] == finished["generate"]["completions"].num_rows


def test_a_stage_that_fails_gives_its_line_and_exit_code(pod: Pod, tools: str) -> None:
    parameters = {"work_uri": WORK, "data": f"{WORK}/nowhere.jsonl", "config": CONFIG}
    ended = pod.run_component("prepare", tools, parameters, {})
    assert ended.status == 3
    assert "limbeck: error 3: no such data set" in ended.output
