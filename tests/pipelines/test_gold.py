"""In no compiled pipeline but that of the upper bound do gold answers reach a training stage."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck import compiled
from limbeck.compiled import SHIPPED

Spec = dict[str, Any]
Edge = tuple[str, str, str]


def load(path: Path) -> Spec:
    """The pipeline itself, without what only Kubernetes reads."""
    spec: Spec = next(iter(yaml.load_all(path.read_text(), yaml.CSafeLoader)))
    return spec


@pytest.fixture
def spec() -> Spec:
    return load(SHIPPED["distill"])


def run_of(spec: Spec) -> Spec:
    """The tasks of a run: those within its exit handler."""
    tasks: Spec = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    return tasks


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


UPPER_BOUND = "distill_gold"
ABLATION = "ablation"


@pytest.mark.parametrize(
    "path",
    sorted(path for name, path in SHIPPED.items() if name not in (UPPER_BOUND, ABLATION)),
    ids=lambda path: path.stem,
)
def test_gold_answers_and_all_that_is_made_of_them_end_in_evaluate_and_report(path: Path) -> None:
    spec = load(path)
    # In `distill_rewards` they come from an earlier run: the third of the tasks called `load`.
    source = ("load-3", "loaded") if path.stem == "distill_rewards" else ("prepare", "gold")
    reached = {re.sub(r"-\d+$", "", task) for task in reached_from(spec, *source)}
    assert reached - {"merge"} == {"evaluate", "report"}  # it merges results


def test_the_third_load_of_distill_rewards_is_the_gold(spec: Spec) -> None:
    tasks = run_of(load(SHIPPED["distill_rewards"]))
    assert tasks["load-3"]["inputs"]["parameters"]["kind"]["runtimeValue"]["constant"] == "gold"


@pytest.mark.parametrize(
    ("loop", "task", "name", "source"),
    [
        ("comp-for-loop-5", "sft", "labelled", "pipelinechannel--prepare-gold"),
        ("comp-for-loop-8", "ppo", "labels", "pipelinechannel--prepare-gold"),
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


def test_the_upper_bound_gives_gold_to_the_labels_of_the_teacher_and_says_so_to_preflight() -> None:
    given = {name for source, output, name in edges(load(SHIPPED[UPPER_BOUND])) if output == "gold"}
    assert {name for name in given if not name.startswith(("evaluate", "report"))} == {"label"}
    said = {name for name, path in SHIPPED.items() if compiled.load(path).gold_labels}
    assert said == {UPPER_BOUND}


def training_tasks(spec: Spec) -> set[str]:
    """Every task that an ablation trains with, or makes training data with, but those of its upper bound."""
    consumers = {consumer for _, _, consumer in edges(spec)}
    return {name for name in consumers if not re.match(r"(evaluate|merge|report|compare)(-\d+)?$", name)}


def test_in_an_ablation_gold_answers_reach_one_label_task_and_the_ppo_that_is_its_upper_bound() -> None:
    spec = load(SHIPPED[ABLATION])
    first = {name for source, output, name in edges(spec) if (source, output) == ("prepare", "gold")}
    (labels,) = {name for name in first if name.startswith("label")}
    reached = reached_from(spec, "prepare", "gold") & training_tasks(spec)
    (policy,) = reached - {labels}
    assert policy.startswith("ppo")
    tasks = run_of(spec)
    for name in reached:
        variant = tasks[name]["inputs"]["parameters"]["variant"]["runtimeValue"]["constant"]
        assert variant == "label.rule=gold,label.calibrate=none"
    # What the two make is measured and counted, and nothing else learns from it.
    consumers = {name for source, _, name in edges(spec) if source in reached} - reached
    assert all(re.match(r"(evaluate|merge|compare)(-\d+)?$", name) for name in consumers)


def test_a_leak_of_the_gold_labels_of_an_ablation_into_a_sweep_would_be_found() -> None:
    spec = load(SHIPPED[ABLATION])
    before = reached_from(spec, "prepare", "gold") & training_tasks(spec)
    (labels,) = {name for name in before if name.startswith("label")}
    loop = next(
        name
        for name, task in run_of(spec).items()
        if "noise" in spec["components"][task["componentRef"]["name"]].get("dag", {}).get("tasks", {})
    )
    inputs = run_of(spec)[loop]["inputs"]["artifacts"]
    for value in inputs.values():
        if value["taskOutputArtifact"]["outputArtifactKey"] == "labels":
            value["taskOutputArtifact"]["producerTask"] = labels
    assert len(reached_from(spec, "prepare", "gold") & training_tasks(spec)) > len(before)


def test_one_pipeline_says_to_preflight_that_it_is_for_open_questions() -> None:
    assert {name for name, path in SHIPPED.items() if compiled.load(path).open_ended} == {"distill_open"}
