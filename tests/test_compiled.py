"""Compiled pipelines: read and written with the same bytes, stamped with nothing but what was asked for."""

from pathlib import Path
from typing import Any

import pytest
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes_pb
from kfp.pipeline_spec import pipeline_spec_pb2 as spec_pb

from limbeck import shapes
from limbeck.compiled import Compiled, dump, images, load, mirrored
from limbeck.errors import ConfigError
from limbeck.stamp import stamp
from tests.small_pipeline import SMALL

SHIPPED = sorted([*Path("pipelines").glob("*/pipeline.yaml"), *Path("components").glob("*/component.yaml")])
TRAIN = "limbeck/train:0.1.0@sha256:" + "b" * 64


@pytest.fixture
def small() -> Compiled:
    return load(SMALL)


def changes(before: Any, after: Any, place: str = "") -> dict[str, Any]:
    """What was added or changed, by place; what was taken away is None."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted(before.keys() | after.keys())
        found = [changes(before.get(key), after.get(key), f"{place}/{key}") for key in keys]
        return {where: value for part in found for where, value in part.items()}
    return {} if before == after else {place: after}


@pytest.mark.parametrize("path", [SMALL, *SHIPPED], ids=str)
def test_reading_and_writing_keeps_every_byte(path: Path) -> None:
    assert dump(load(path)) == path.read_text()


def test_stamping_nothing_keeps_every_byte(small: Compiled) -> None:
    assert dump(stamp(small)) == SMALL.read_text()


def test_stamping_leaves_the_pipeline_it_was_given_alone(small: Compiled) -> None:
    stamp(small, queue="team", images={"train": "other"}, shm="1Gi", scratch="1Gi", retries=1)
    assert small == load(SMALL)


def test_the_same_choices_give_the_same_bytes_in_any_order(small: Compiled) -> None:
    at_once = stamp(small, queue="team", shm="16Gi", retries=2, images={"tools": "t", "train": "u"})
    one_by_one = stamp(stamp(stamp(small, retries=2), images={"train": "u", "tools": "t"}), shm="16Gi")
    assert dump(at_once) == dump(stamp(one_by_one, queue="team"))


def test_what_is_stamped_stands_where_kubeflow_would_write_it(small: Compiled) -> None:
    text = dump(stamp(small, queue="team"))
    assert text.index("emptyDirMounts") < text.index("podMetadata") < text.index("secretAsEnv")


SETTINGS = "/platforms/kubernetes/deploymentSpec/executors"
POLICY = "/components/comp-for-loop-1/dag/tasks/train/retryPolicy"


@pytest.mark.parametrize(
    ("choice", "spec", "platform"),
    [
        (
            {"queue": "team-a"},
            {},
            {
                f"{SETTINGS}/exec-{name}/podMetadata": {"labels": {"kueue.x-k8s.io/queue-name": "team-a"}}
                for name in ("preflight", "train")
            },
        ),
        (
            {"images": {"train": "r.example:5000/x/train@sha256:" + "c" * 64}},
            {
                "/deploymentSpec/executors/exec-train/container/image": "r.example:5000/x/train@sha256:"
                + "c" * 64
            },
            {},
        ),
        (
            {"retries": 7},
            {f"{POLICY}/maxRetryCount": 7, "/root/dag/tasks/preflight/retryPolicy/maxRetryCount": 7},
            {},
        ),
        ({"retries": 0}, {POLICY: None, "/root/dag/tasks/preflight/retryPolicy": None}, {}),
    ],
    ids=["queue", "image", "retries", "no retries"],
)
def test_a_choice_changes_its_own_places_alone(
    small: Compiled, choice: dict[str, Any], spec: dict[str, Any], platform: dict[str, Any]
) -> None:
    stamped = stamp(small, **choice)
    assert changes(small.spec, stamped.spec) == spec
    assert changes(small.platform, stamped.platform) == platform


def test_the_parameters_that_must_be_given_are_those_without_a_default(small: Compiled) -> None:
    assert sorted(small.required) == ["config", "work_uri"]
    small.parameters["config"]["isOptional"] = True
    assert small.required == ["work_uri"]


def sizes(compiled: Compiled) -> list[tuple[str, str, str]]:
    return [
        (label, mount["mountPath"], mount["sizeLimit"])
        for label, settings in compiled.kubernetes.items()
        for mount in settings["emptyDirMounts"]
    ]


def test_shared_memory_and_scratch_space_are_set_apart(small: Compiled) -> None:
    assert sizes(stamp(small, shm="64Gi", scratch="200Gi")) == [
        ("exec-preflight", "/tmp", "200Gi"),
        ("exec-train", "/tmp", "200Gi"),
        ("exec-train", "/dev/shm", "64Gi"),
    ]


def test_a_task_with_gpus_gets_shared_memory_where_it_has_none(small: Compiled) -> None:
    bare = Compiled(small.spec, {})
    assert stamp(bare, shm="1Gi").kubernetes == {
        "exec-train": {
            "emptyDirMounts": [
                {"medium": "Memory", "mountPath": "/dev/shm", "sizeLimit": "1Gi", "volumeName": "shm"}
            ]
        }
    }


def test_retries_are_added_with_a_window_that_outlasts_long_stages(small: Compiled) -> None:
    never = stamp(small, retries=0)
    _, task, _ = next(item for item in stamp(never, retries=2).tasks() if item[0] == "train")
    assert task["retryPolicy"] == {
        "backoffDuration": "60s",
        "backoffFactor": 2.0,
        "backoffMaxDuration": "1209600s",
        "maxRetryCount": 2,
    }


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"queue": "Team A"}, "not the name of a LocalQueue in --queue"),
        ({"queue": "a" * 64}, "at most 63"),
        ({"images": {"tool": "x"}}, "--image tool=x: expected one of tools, train"),
        ({"images": {"tools": "x y"}}, "a reference such as registry/team/tools:1"),
        ({"shm": "16 GB"}, "a quantity such as 16Gi, got '16 GB'"),
        ({"scratch": "-1Gi"}, "not a size in --scratch"),
        ({"retries": -1}, "--retries: expected 0 to 100, got -1"),
    ],
)
def test_a_choice_that_cannot_be_is_refused_with_the_way_out(
    small: Compiled, choice: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        stamp(small, **choice)
    assert message in str(caught.value)


def test_a_size_that_no_task_has_is_refused(small: Compiled) -> None:
    del small.spec["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]
    bare = Compiled(small.spec, {})
    with pytest.raises(ConfigError, match="No task mounts /dev/shm or asks for GPUs: leave the option out"):
        stamp(bare, shm="1Gi")
    with pytest.raises(ConfigError, match="No task mounts an emptyDir on disk"):
        stamp(bare, scratch="1Gi")


def test_images_are_listed_once_and_sorted_with_the_default_of_a_parameter(small: Compiled) -> None:
    executors = small.spec["deploymentSpec"]["executors"]
    executors["again"] = executors["exec-train"]
    executors["chosen"] = {"container": {"image": "{{$.inputs.parameters['pipelinechannel--image']}}"}}
    executors["claim"] = {"container": {"image": "argostub/createpvc"}}
    small.spec["root"]["inputDefinitions"]["parameters"]["image"] = {"defaultValue": "a/chosen:1"}
    assert images(small) == ["a/chosen:1", TRAIN, "registry.example.org/limbeck/tools@sha256:" + "a" * 64]


@pytest.mark.parametrize(
    ("image", "target"),
    [
        ("limbeck/train:1", "mirror.local/limbeck/train:1"),
        ("python:3.11", "mirror.local/python:3.11"),
        ("ghcr.io/team/tools@sha256:ab", "mirror.local/team/tools@sha256:ab"),
        ("localhost/x:1", "mirror.local/x:1"),
        ("registry:5000/x:1", "mirror.local/x:1"),
    ],
)
def test_a_mirror_takes_the_place_of_the_registry(image: str, target: str) -> None:
    assert mirrored(image, "mirror.local/") == target


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not YAML"),
        ("root: &x {}\nother: *x\n", "a YAML alias in"),
        ("root: {}\nroot: {}\n", "key `root` twice in one mapping"),
        ("[" * 5000, "not YAML"),
        ("- 1\n", "not a compiled pipeline"),
        ("pipelineInfo: {name: x}\n", "not a compiled pipeline"),
        ("root: {}\n---\nroot: {}\n", "not a compiled pipeline"),
        ("root: {}\n---\nplatforms: {}\n---\nother: {}\n", "not a compiled pipeline"),
        ("platforms: {}\n---\nroot: {}\n", "not a compiled pipeline"),
        ("root: {dag: {tasks: {a: {retries: 3}}}}\n", "pipeline.root.dag.tasks.a.retries"),
    ],
)
def test_a_file_that_is_no_compiled_pipeline_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert message in str(caught.value)


def test_a_file_larger_than_an_upload_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    with path.open("wb") as file:
        file.truncate((32 << 20) + 1)
    with pytest.raises(ConfigError, match=f"at most {32 << 20} bytes"):
        load(path)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (shapes.PIPELINE_SPEC, spec_pb.PipelineSpec),
        (shapes.PIPELINE_SPEC["deploymentSpec"], spec_pb.PipelineDeploymentConfig),
        (shapes.PLATFORM_SPEC["platforms"]["kubernetes"], spec_pb.SinglePlatformSpec),
        (shapes.KUBERNETES, kubernetes_pb.KubernetesExecutorConfig),
    ],
    ids=["pipeline", "executors", "platform", "kubernetes"],
)
def test_the_shapes_have_the_fields_that_kubeflow_has(shape: dict[str, Any], message: Any) -> None:
    assert differences(shape, message.DESCRIPTOR) == []


def differences(shape: dict[str, Any], message: Any) -> list[str]:
    """Keys that only the shape or only the protobuf message has, wherever the shape goes into detail."""
    fields = {field.json_name: field for field in message.fields}
    found = [f"{message.name}.{key}" for key in shape.keys() ^ fields.keys()]
    for key in shape.keys() & fields.keys():
        inner, kind = shape[key], fields[key].message_type
        inner = inner[0] if isinstance(inner, list) else inner
        if isinstance(inner, dict) and "*" in inner:
            inner, kind = inner["*"], kind.fields_by_name["value"].message_type
        if isinstance(inner, dict) and not kind.full_name.startswith("google.protobuf."):
            found += differences(inner, kind)
    return found
