"""Bad input is refused with its remedy, in one line, before work begins."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck import manifest
from limbeck.compiled import find, load
from limbeck.errors import ConfigError, DataError, LimbeckError
from limbeck.manifest import Manifest
from limbeck.preflight.asked import Asked, read_settings
from limbeck.resources import parse_resources, requests
from limbeck.run_file import RunFile, arguments, load_run_file
from limbeck.stamp import stamp
from limbeck.tasks.artifacts import MADE_BY, Kind, read
from tests.stage_process import FileArtifact


def one_line(action: Callable[[], object], kind: type[LimbeckError]) -> str:
    with pytest.raises(kind) as caught:
        action()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def made(**changes: Any) -> str:
    """A manifest as JSON, with changes; None takes a field away."""
    uri = "s3://bucket/work/label/1234"
    fields = {
        "schema_version": 1, "stage": "label", "kind": "labels", "name": "labels", "uri": uri,
        "objects": [], "inputs": {}, "config_hash": "", "code_version": "",
    }  # fmt: skip
    return json.dumps({name: value for name, value in (fields | changes).items() if value is not None})


@pytest.mark.parametrize("version", [0, 2, -1, 10**30])
def test_a_manifest_of_another_version_is_refused(version: int) -> None:
    message = one_line(lambda: manifest.parse(made(schema_version=version), "there"), DataError)
    assert message.startswith("a manifest of another schema version in there: expected version 1, got ")
    assert message.endswith("Run the stage that made it again, or use the version of Limbeck that made it")


def test_another_version_is_told_before_its_unknown_fields() -> None:
    text = made(schema_version=2, shards=[], objects="elsewhere")
    assert "another schema version" in one_line(lambda: manifest.parse(text, "there"), DataError)


def test_a_manifest_without_a_version_is_of_the_first() -> None:
    assert manifest.parse(made(schema_version=None), "there") == manifest.parse(made(), "there")


NO_MANIFESTS = {
    "a version in words": made(schema_version="two"),
    "a version in parts": made(schema_version=1.5),
    "no JSON": "{",
    "nothing": "",
    "a list": "[]",
    "an HTML page": "<html></html>",
    "deep JSON": "[" * 100_000,
    "an unknown field": made(surprise=1),
    "a field too few": made(kind=None),
    "a field of another type": made(objects="s3://bucket/x"),
    "an object without an address": made(objects=[{"bytes": 1, "sha256": ""}]),
    "text with half a character": made(name="x").replace('"x"', '"\\ud800"'),
}


@pytest.mark.parametrize("text", NO_MANIFESTS.values(), ids=NO_MANIFESTS)
def test_what_is_no_manifest_is_refused(text: str) -> None:
    message = one_line(lambda: manifest.parse(text, "there"), DataError)
    assert message.startswith("not a Limbeck manifest in there: expected the JSON that a stage writes, got ")
    assert len(message) < 500


@pytest.mark.parametrize("kind", MADE_BY)
def test_an_artifact_of_the_wrong_kind_is_refused_with_where_to_wire_it(tmp_path: Path, kind: Kind) -> None:
    (tmp_path / "labels").write_text(made(kind="prompts" if kind == "labels" else "labels"))
    message = one_line(lambda: read(FileArtifact(str(tmp_path / "labels")), kind), DataError)
    assert f"expected a manifest of {kind}" in message
    assert message.endswith(f"Wire it to {MADE_BY[kind]}")


ARTIFACTS: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "binary": lambda path: path.write_bytes(b"PAR1\xff\xfe"),
    "empty": lambda path: path.touch(),
    "of another version": lambda path: path.write_text(made(schema_version=3)),
}


@pytest.mark.parametrize("make", ARTIFACTS.values(), ids=ARTIFACTS)
def test_an_artifact_without_a_manifest_is_refused(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "labels")
    message = one_line(lambda: read(FileArtifact(str(tmp_path / "labels")), "labels"), DataError)
    assert "input labels" in message


@pytest.mark.parametrize("gpus", [-1, 65, 10**12])
def test_an_impossible_number_of_gpus_is_refused(gpus: int) -> None:
    _, findings = read_settings(Asked(work_uri="s3://b/w", stages=["sft"], gpus=gpus))
    (said,) = [str(item.error) for item in findings]
    assert said == f"impossible number of GPUs in parameter gpus: expected 0 to 64, got {gpus}. Correct it"


RESOURCES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "too few GPUs": ({"sft": {"gpus": -1}}, ["`sft.gpus`", "greater than or equal to 0", "-1"]),
    "too many GPUs": ({"sft": {"gpus": 65}}, ["`sft.gpus`", "less than or equal to 64", "65"]),
    "half a GPU": ({"sft": {"gpus": 1.5}}, ["`sft.gpus`", "integer", "1.5"]),
    "GPUs in words": ({"sft": {"gpus": "two"}}, ["`sft.gpus`", "integer", "'two'"]),
    "not a number": ({"sft": {"gpus": float("nan")}}, ["`sft.gpus`", "finite number"]),
    "CPUs in words": ({"sft": {"cpu": "many"}}, ["`sft.cpu`", "'many'"]),
    "a truth as CPUs": ({"sft": {"cpu": True}}, ["`sft.cpu`", "True"]),
    "memory with a blank": ({"sft": {"memory": "64 GB"}}, ["`sft.memory`", "'64 GB'"]),
    "memory with a forgotten unit": ({"sft": {"memory": 64}}, ["`sft.memory`", "'64'"]),
    "memory with a unit that is none": ({"sft": {"memory": "64K"}}, ["`sft.memory`", "'64K'"]),
    "negative memory": ({"sft": {"memory": "-1Gi"}}, ["`sft.memory`", "'-1Gi'"]),
    "an unknown stage": ({"stf": {"gpus": 1}}, ["unknown setting `stf`", "Did you mean `sft`?"]),
    "an unknown wish": ({"sft": {"gpu": 1}}, ["unknown setting `sft.gpu`", "Did you mean `gpus`?"]),
    "a list": ({"sft": [1]}, ["`sft`"]),
}


@pytest.mark.parametrize(("values", "words"), RESOURCES.values(), ids=RESOURCES)
def test_impossible_resources_are_refused(values: dict[str, Any], words: list[str]) -> None:
    message = one_line(lambda: parse_resources(values), ConfigError)
    for word in (*words, "in resources"):
        assert word in message, message


@pytest.mark.parametrize("stage", ["prepare", "label", "report"])
def test_gpus_for_a_stage_without_an_engine_are_refused(stage: str) -> None:
    wished = parse_resources({stage: {"gpus": 1}})
    message = one_line(lambda: requests(wished, 1), ConfigError)
    assert message.startswith(
        f"this stage uses no GPU in resources.{stage}.gpus: expected 0, got 1. Remove it"
    )


@pytest.mark.parametrize(("given", "asked"), [(68719476736.0, "68719476736"), ("64k", "64k"), ("2Gi", "2Gi")])
def test_memory_is_any_quantity_of_kubernetes(given: object, asked: str) -> None:
    assert requests(parse_resources({"ppo": {"memory": given}}), 1)["ppo"].memory == asked


RUN_FILES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a selector that is a list": (
        {"node_selector": ["gpu"]},
        ["`node_selector`", "dictionary", "got a list"],
    ),
    "a selector with numbers": ({"node_selector": {"gpu": 1}}, ["`node_selector.gpu`", "string", "1"]),
    "an affinity that is a text": ({"node_affinity": "{}"}, ["`node_affinity`", "dictionary"]),
    "tolerations that are a mapping": ({"tolerations": {"key": "x"}}, ["`tolerations`", "list"]),
    "a toleration that is a text": ({"tolerations": ["gpu"]}, ["`tolerations.0`", "dictionary"]),
    "a toleration with a typing error": ({"tolerations": [{"Key": "x"}]}, ["`tolerations.0.Key`"]),
    "an affinity of pods": ({"node_affinity": {"podAffinity": {}}}, ["`node_affinity.podAffinity`"]),
    "GPUs without a name": ({"gpu_resource": ""}, ["`gpu_resource`", "got ''"]),
    "too few GPUs": ({"gpus": -1}, ["`gpus`", "greater than or equal to 0"]),
    "half a GPU": ({"gpus": 0.5}, ["`gpus`", "integer"]),
    "no shard": ({"num_shards": 0}, ["`num_shards`", "greater than or equal to 1"]),
    "a secret that is a number": ({"s3_secret": 7}, ["`s3_secret`", "string"]),
    "models that are a text": ({"models": "s3://b/m"}, ["`models`"]),
    "a work_uri that is a path": ({"work_uri": "/data/work"}, ["`work_uri`", "object-store address"]),
    "an unknown parameter": ({"node_selectors": {}}, ["`node_selectors`", "Did you mean `node_selector`?"]),
}


@pytest.mark.parametrize(("values", "words"), RUN_FILES.values(), ids=RUN_FILES)
def test_a_run_file_with_a_parameter_of_another_type_is_refused(
    tmp_path: Path, values: dict[str, Any], words: list[str]
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    message = one_line(lambda: load_run_file(path), ConfigError)
    for word in (*words, "run.yaml"):
        assert word in message, message


def for_distill(given: RunFile) -> dict[str, Any]:
    return arguments(given, load(find("distill")))


def test_a_parameter_that_the_pipeline_does_not_take_is_refused() -> None:
    given = RunFile(work_uri="s3://b/w", models=("s3://b/m",), prompts="s3://b/p", teacher="t", student="s")
    message = one_line(lambda: arguments(given, load(find("distill"))), ConfigError)
    assert message.startswith("unknown parameter `models` in pipeline distill: expected ")


def test_a_parameter_that_the_pipeline_must_have_is_named() -> None:
    given = RunFile(work_uri="s3://b/w")
    message = one_line(lambda: arguments(given, load(find("distill"))), ConfigError)
    assert message.startswith("missing parameter `")
    assert message.endswith("Add it to the run file")


IMAGES = {
    "an unknown name": {"tool": "registry/tools:1"},
    "no name": {"": "registry/tools:1"},
    "no reference": {"tools": ""},
    "a blank": {"tools": "registry/tools :1"},
    "two lines": {"tools": "registry/tools\n:1"},
    "an option": {"tools": "--privileged"},
    "signs alone": {"tools": "@@@"},
    "no name before a tag": {"tools": ":1"},
    "upper case": {"tools": "registry/Tools:1"},
    "half a digest": {"tools": "registry/tools@sha256:abc"},
    "a digest in upper case": {"tools": "registry/tools@sha256:" + "A" * 64},
    "a web address": {"tools": "https://registry/tools:1"},
    "a user": {"tools": "user:password@registry/tools:1"},
    "a way up": {"tools": "registry/../tools:1"},
    "a template": {"tools": "{{inputs.parameters.image}}"},
}


@pytest.mark.parametrize("images", IMAGES.values(), ids=IMAGES)
def test_an_image_that_is_unknown_or_malformed_is_refused(images: dict[str, str]) -> None:
    pipeline = load(find("distill"))
    message = one_line(lambda: stamp(pipeline, images=images), ConfigError)
    assert message.startswith("cannot set this image in --image ")


@pytest.mark.parametrize(
    "reference",
    ["tools", "limbeck/tools:0.1.0", "registry.example:5000/a/b-c/tools_x:v1.2", f"r/tools@sha256:{'a' * 64}",
     f"r/tools:1@sha256:{'0' * 64}", "localhost/limbeck/tools:dev"],
)  # fmt: skip
def test_an_image_as_registries_name_them_is_taken(reference: str) -> None:
    stamped = stamp(load(find("distill")), images={"tools": reference})
    assert reference in {container["image"] for container in stamped.containers.values()}


def test_the_manifest_of_a_checkpoint_is_read_back_whole(tmp_path: Path) -> None:
    """What is refused above is refused for its faults alone."""
    whole = Manifest.model_validate_json(made())
    (tmp_path / "labels").write_text(whole.to_json())
    assert read(FileArtifact(str(tmp_path / "labels")), "labels") == whole


def test_an_error_cannot_steer_a_terminal() -> None:
    """Parts of a message come from data sets, manifests and servers."""
    message = str(LimbeckError("broken", where="a\x1b[2Jb", got="\x9b31m\u202etxet\u2028\r\x07"))
    assert message.isprintable()
    assert message == "broken in a [2Jb: got 31m txet"
