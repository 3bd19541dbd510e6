"""The compiled `distill` pipeline: where gold answers go, what it takes, and that compiling is stable."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck.cli import PIPELINE
from limbeck.config import RunFile
from limbeck.local import task_names
from pipelines.compile import ROOT, compile_all

Spec = dict[str, Any]
Edge = tuple[str, str, str]


@pytest.fixture(scope="module")
def documents() -> list[Spec]:
    """The pipeline, and what only Kubernetes reads."""
    return list(yaml.load_all(Path("pipelines/distill/pipeline.yaml").read_text(), yaml.CSafeLoader))


@pytest.fixture
def spec(documents: list[Spec]) -> Spec:
    return copy.deepcopy(documents[0])


def edges(spec: Spec) -> Iterator[Edge]:
    """Every artifact that a task is given: (producing task, its output, consuming component)."""

    def walk(dag: Spec, given: dict[str, tuple[str, str]]) -> Iterator[Edge]:
        collected = {  # what a loop gives on: (loop, name) -> (task, output)
            (name, output): source
            for name, task in dag["tasks"].items()
            for output, source in given_on(spec["components"][task["componentRef"]["name"]]).items()
        }
        for task in dag["tasks"].values():
            component_name = task["componentRef"]["name"]
            sources: dict[str, tuple[str, str]] = {}
            for name, value in task.get("inputs", {}).get("artifacts", {}).items():
                if "componentInputArtifact" in value:
                    sources[name] = given[value["componentInputArtifact"]]
                else:
                    output = value["taskOutputArtifact"]
                    source = (output["producerTask"], output["outputArtifactKey"])
                    sources[name] = collected.get(source, source)
            component = spec["components"][component_name]
            if "dag" in component:
                yield from walk(component["dag"], sources)
            else:
                for producer, output_name in sources.values():
                    yield producer, output_name, component_name.removeprefix("comp-")

    def given_on(component: Spec) -> dict[str, tuple[str, str]]:
        outputs = component.get("dag", {}).get("outputs", {}).get("artifacts", {})
        return {
            name: (selector["producerSubtask"], selector["outputArtifactKey"])
            for name, value in outputs.items()
            for selector in value["artifactSelectors"]
        }

    yield from walk(spec["root"]["dag"], {})


def reached_from(spec: Spec, producer: str, output: str) -> set[str]:
    """Every task that an output reaches, directly or through what other tasks make of it."""
    found = list(edges(spec))
    reached = {consumer for source, name, consumer in found if (source, name) == (producer, output)}
    while more := {consumer for source, _, consumer in found if source in reached} - reached:
        reached |= more
    return reached


def test_gold_answers_and_all_that_is_made_of_them_end_in_evaluate_and_report(spec: Spec) -> None:
    assert reached_from(spec, "prepare", "gold") == {"evaluate", "evaluate-2", "evaluate-3", "report"}


@pytest.mark.parametrize(
    ("loop", "task", "name", "source"),
    [
        ("comp-for-loop-3", "sft", "labelled", "pipelinechannel--prepare-gold"),
        ("comp-for-loop-5", "ppo", "labels", "pipelinechannel--prepare-gold"),
    ],
)
def test_a_leak_of_gold_into_training_would_be_found(
    spec: Spec, loop: str, task: str, name: str, source: str
) -> None:
    inputs = spec["components"][loop]["dag"]["tasks"][task]["inputs"]["artifacts"]
    inputs[name] = {"componentInputArtifact": source}
    assert task in reached_from(spec, "prepare", "gold")


def test_training_prompts_reach_every_training_stage(spec: Spec) -> None:
    assert {"sft", "reward", "ppo"} <= reached_from(spec, "prepare", "prompts")


def test_the_parameters_are_those_of_a_run_file_and_the_secret(spec: Spec) -> None:
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    fields = RunFile.model_fields
    assert set(parameters) == set(fields) | {"s3_secret"}
    for name in ("num_shards", "ppo_rewards"):
        default = fields[name].default
        assert parameters[name]["defaultValue"] == (list(default) if isinstance(default, tuple) else default)


def test_every_task_gets_the_secret_of_the_object_store(documents: list[Spec]) -> None:
    spec, platform = documents
    with_secret = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(with_secret) == set(spec["deploymentSpec"]["executors"])
    for executor in with_secret.values():
        variables = {pair["envVar"] for pair in executor["secretAsEnv"][0]["keyToEnv"]}
        assert variables == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"}


def test_preflight_is_never_taken_from_the_cache(spec: Spec) -> None:
    tasks = spec["root"]["dag"]["tasks"]
    assert not tasks["preflight"]["cachingOptions"].get("enableCache")
    assert tasks["prepare"]["cachingOptions"]["enableCache"]


def test_loops_are_unrolled_into_names_for_the_screen(spec: Spec) -> None:
    arguments = {"work_uri": "s3://b/w", "config": {}, "num_shards": 2, "ppo_rewards": ["model", "mixed"]}
    names = task_names(spec, arguments)
    assert len(names) == 24
    assert names["for-loop-1-iteration-1/generate"] == "generate teacher 2/2"
    assert names["for-loop-3-iteration-0/sft"] == "sft selected"
    assert names["for-loop-5-iteration-1/evaluate-2"] == "evaluate ppo mixed"
    assert names["for-loop-7-iteration-1/evaluate-3"] == "evaluate student"
    assert names["label-2"] == "label student"


def test_compiled_files_are_those_of_the_sources_byte_for_byte(tmp_path: Path) -> None:
    for path in compile_all(tmp_path):
        assert path.read_bytes() == (ROOT / path.relative_to(tmp_path)).read_bytes(), path


def test_the_installed_package_carries_the_same_pipeline() -> None:
    assert PIPELINE.read_bytes() == Path("pipelines/distill/pipeline.yaml").read_bytes()
