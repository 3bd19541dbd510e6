"""What the API server refuses, found without it: files that it cannot take, and arguments that do not fit."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2 as spec_pb

from limbeck.lint import lint
from tests.small_pipeline import (
    REQUIRED,
    SECRET,
    SMALL,
    Edit,
    container,
    edited,
    parameters,
    preflight,
    settings,
)

# What protobuf itself does not read, and so neither the API server nor the kfp command.
UNREADABLE: list[tuple[str, Edit, str]] = [
    ("an unknown key", lambda s, _: s.update(retries=3), "pipeline.retries: unknown key"),
    (
        "an unknown key of a task",
        lambda s, _: preflight(s).update(retryPolicies={}),
        "pipeline.root.dag.tasks.preflight.retryPolicies: unknown key",
    ),
    (
        "a text for a number",
        lambda s, _: preflight(s)["retryPolicy"].update(maxRetryCount="many"),
        "maxRetryCount: expected a whole number, got a string",
    ),
    (
        "a mapping for a list",
        lambda s, _: preflight(s).update(dependentTasks={}),
        "dependentTasks: expected a list, got a mapping",
    ),
    ("a list for a mapping", lambda s, _: s.update(components=[]), "expected a mapping, got a list"),
    ("a bool for a text", lambda s, _: s.update(sdkVersion=True), "expected a string, got true or false"),
]


@pytest.mark.parametrize(
    ("edit", "line"), [row[1:] for row in UNREADABLE], ids=[row[0] for row in UNREADABLE]
)
def test_what_protobuf_cannot_read_is_an_error(tmp_path: Path, edit: Edit, line: str) -> None:
    path = edited(tmp_path, edit)
    spec = next(yaml.safe_load_all(path.read_text()))
    with pytest.raises((json_format.ParseError, AttributeError, TypeError)):
        json_format.ParseDict(spec, spec_pb.PipelineSpec())
    (finding,) = lint(path)
    assert finding.severity == "error"
    assert line in str(finding)


REFUSED: list[tuple[str, Edit, str]] = [
    ("another schema version", lambda s, _: s.update(schemaVersion="2.0.0"), "expected 2.1.0, got 2.0.0"),
    ("no schema version", lambda s, _: s.pop("schemaVersion"), "expected 2.1.0, got nothing"),
    ("a name in capitals", lambda s, _: s.update(pipelineInfo={"name": "Small"}), "not a name: 'Small'"),
    ("a name too long", lambda s, _: s.update(pipelineInfo={"name": "a" * 129}), "pipelineInfo.name"),
    ("no name", lambda s, _: s.update(pipelineInfo={}), "not a name: ''"),
    ("no root", lambda s, _: s.pop("root"), "no root"),
    ("an empty root", lambda s, _: s.update(root={}), "root: neither an executor nor tasks in it"),
    ("a task of no component", lambda s, _: s["components"].pop("comp-preflight"), "no component called"),
    (
        "a component of no executor",
        lambda s, _: s["deploymentSpec"]["executors"].pop("exec-train"),
        "comp-train: no container or importer called exec-train",
    ),
    (
        "a container of no image",
        lambda s, _: container(s, "train").pop("image"),
        "comp-train: no container or importer called exec-train",
    ),
    (
        "a task that waits for none",
        lambda s, _: preflight(s).update(dependentTasks=["gone"]),
        "root task preflight: waits for task 'gone'",
    ),
    (
        "a loop over artifacts",
        lambda s, _: preflight(s).update(artifactIterator={}),
        "loops over artifacts do not work",
    ),
    (
        "settings of an unknown executor",
        lambda _, p: settings(p, "other"),
        "platform exec-other: settings of an executor that the pipeline has not",
    ),
    (
        "an unknown setting",
        lambda _, p: settings(p, "train").update(podLabels={}),
        "platform.platforms.kubernetes.deploymentSpec.executors.exec-train.podLabels: unknown key",
    ),
    ("another platform", lambda _, p: p["platforms"].update(other={}), "platform.platforms.other: unknown"),
]


@pytest.mark.parametrize(("edit", "line"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_the_api_server_refuses_is_an_error(tmp_path: Path, edit: Edit, line: str) -> None:
    findings = lint(edited(tmp_path, edit))
    assert [finding.severity for finding in findings if line in str(finding)] == ["error"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "0 pipeline specs"),
        ("apiVersion: argoproj.io/v1alpha1\n", "0 pipeline specs"),
        (SMALL.read_text() + "---\n" + SMALL.read_text(), "2 pipeline specs"),
        (SMALL.read_text() + "---\nplatforms: {}\n", "2 platform specs"),
        (SMALL.read_text() + "---\nplatform: {}\n", "a document that Kubeflow takes no notice of"),
        ("---\n".join(reversed(SMALL.read_text().split("---\n"))), "the platform spec comes first"),
    ],
    ids=["empty", "another format", "two pipelines", "two platforms", "a third document", "turned round"],
)
def test_the_documents_are_one_pipeline_and_at_most_one_platform(
    tmp_path: Path, text: str, line: str
) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    assert line in "\n".join(str(finding) for finding in lint(path))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, []),
        ({"gpus": 2, "kinds": [], "fast": True, "rate": 1}, []),
        ({"gpus": 2.0}, []),
        ({"work_uri": None}, ["argument work_uri: expected STRING, got NoneType. Give a string"]),
        ({"work_uri": 7}, ["argument work_uri: expected STRING, got int. Give a string"]),
        ({"gpus": "2"}, ["argument gpus: expected NUMBER_INTEGER, got str. Give a number"]),
        ({"gpus": True}, ["argument gpus: expected NUMBER_INTEGER, got bool. Give a number"]),
        ({"gpus": 1.5}, ["argument gpus: expected a whole number, got a fraction. Give a number"]),
        ({"rate": "0.1"}, ["argument rate: expected NUMBER_DOUBLE, got str. Give a number"]),
        (
            {"rate": float("nan")},
            ["argument rate: it holds what JSON does not know, such as a date. Give a number"],
        ),
        ({"fast": 1}, ["argument fast: expected BOOLEAN, got int. Give true or false"]),
        ({"kinds": "a"}, ["argument kinds: expected LIST, got str. Give a list in JSON"]),
        ({"config": []}, ["argument config: expected STRUCT, got list. Give a mapping in JSON"]),
        (
            {"gpu": 1},
            [
                "argument gpu: unknown parameter. The pipeline takes: "
                "config, fast, gpus, kinds, rate, s3_secret, work_uri"
            ],
        ),
        ({"s3_secret": "mine"}, []),
        ({"config": {"a": [{"api_key": "x"}]}}, ["argument.config.a[0].api_key: looks like a secret"]),
        ({"config": {"max_tokens": 8, "pad_token": "<pad>", "token": ""}}, []),
        ({"work_uri": SECRET}, ["argument.work_uri: looks like a secret"]),
    ],
)
def test_arguments_are_checked_as_the_api_server_does(arguments: dict[str, Any], expected: list[str]) -> None:
    found = [str(finding) for finding in lint(SMALL, REQUIRED | arguments)]
    assert [
        line.removeprefix("error: ")[: len(text)] for line, text in zip(found, expected, strict=True)
    ] == expected


def test_a_finding_is_one_line_of_single_spaces() -> None:
    (finding,) = lint(SMALL, REQUIRED | {"a\n\x1b[2J  b": 1})
    assert str(finding).startswith("error: argument a [2J b: unknown parameter")


def test_what_is_missing_is_said_all_at_once() -> None:
    assert [str(finding) for finding in lint(SMALL, {})] == [
        "error: argument config: missing. Give a mapping in JSON",
        "error: argument work_uri: missing. Give a string",
    ]


def test_a_value_outside_those_allowed_is_refused(tmp_path: Path) -> None:
    path = edited(tmp_path, lambda s, _: parameters(s)["rate"].update(literals=[0.5, 1.0]))
    assert lint(path, REQUIRED | {"rate": 1}) == []
    (finding,) = lint(path, REQUIRED | {"rate": 0.7})
    assert "not one of [0.5, 1.0]" in str(finding)
