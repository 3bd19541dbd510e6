"""Lint: a pipeline that is right has no findings, and each of our rules has its own line."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from limbeck.errors import ConfigError
from limbeck.lint import lint
from limbeck.parameters import read_parameters
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

SHIPPED = sorted(Path("pipelines").glob("*/pipeline.yaml"))


def test_a_file_that_is_right_has_no_findings() -> None:
    assert lint(SMALL, REQUIRED, strict=True) == []


@pytest.mark.parametrize("path", SHIPPED, ids=str)
def test_of_the_shipped_pipelines_only_images_await_their_digests(path: Path) -> None:
    assert {finding.remedy for finding in lint(path)} <= {"Name it by digest: `limbeck compile --image`"}


OUR_RULES: list[tuple[str, str, Edit, str]] = [
    (
        "warning",
        "an image by tag",
        lambda s, _: container(s, "train").update(image="limbeck/train:0.1.0"),
        "exec-train: image limbeck/train:0.1.0 can change",
    ),
    (
        "warning",
        "never retried",
        lambda s, _: preflight(s).pop("retryPolicy"),
        "task preflight: never tried again",
    ),
    (
        "warning",
        "retried for an hour",
        lambda s, _: preflight(s)["retryPolicy"].update(backoffMaxDuration="3600s"),
        "task preflight: not tried again 3600s after its start",
    ),
    (
        "warning",
        "retried for Kubeflow's default",
        lambda s, _: preflight(s)["retryPolicy"].pop("backoffMaxDuration"),
        "task preflight: not tried again an hour after its start",
    ),
    (
        "warning",
        "pip",
        lambda s, _: container(s, "train").update(command=["sh", "-c", "python -m pip install x"]),
        "exec-train: installs packages",
    ),
    (
        "warning",
        "a cached preflight",
        lambda s, _: preflight(s).update(cachingOptions={"enableCache": True}),
        "task preflight: may be answered from the cache",
    ),
    (
        "warning",
        "no memory",
        lambda s, _: [
            container(s, "train")["resources"].pop(k) for k in ("memoryLimit", "resourceMemoryLimit")
        ],
        "exec-train: no request or limit of memory",
    ),
    (
        "warning",
        "no shared memory",
        lambda _, p: settings(p, "train")["emptyDirMounts"].pop(),
        "exec-train: GPUs without shared memory",
    ),
    (
        "warning",
        "shared memory on disk",
        lambda _, p: settings(p, "train")["emptyDirMounts"][1].pop("medium"),
        "exec-train: GPUs without shared memory",
    ),
    (
        "warning",
        "a component that moves its artifact",
        lambda s, _: container(s, "train").update(command=["def f(out):\n    out.uri = 's3://x'\n"]),
        "exec-train: sets an artifact's URI",
    ),
    (
        "error",
        "a parameter for a token",
        lambda s, _: parameters(s).update(hf_token={"parameterType": "STRING"}),
        "parameter hf_token: a parameter that asks for a secret",
    ),
    (
        "error",
        "a default that is a secret",
        lambda s, _: parameters(s)["work_uri"].update(defaultValue=SECRET),
        "pipeline.root.inputDefinitions.parameters.work_uri.defaultValue: looks like a secret",
    ),
    (
        "error",
        "a password in the environment",
        lambda s, _: container(s, "train").update(env=[{"name": "DB_PASSWORD", "value": "x"}]),
        "exec-train env DB_PASSWORD: a secret as constant",
    ),
    (
        "error",
        "a key in an address",
        lambda s, _: container(s, "train").update(args=["https://me:hunter2@example.org"]),
        "exec-train.container.args[0]: looks like a secret",
    ),
    (
        "error",
        "a secret in an annotation",
        lambda _, p: settings(p, "train").update(podMetadata={"annotations": {"a": "AKIA" + "A" * 16}}),
        "exec-train.podMetadata.annotations.a: looks like a secret",
    ),
]


@pytest.mark.parametrize(
    ("severity", "edit", "line"), [(row[0], *row[2:]) for row in OUR_RULES], ids=[row[1] for row in OUR_RULES]
)
def test_our_own_rules_find(tmp_path: Path, severity: str, edit: Edit, line: str) -> None:
    path = edited(tmp_path, edit)
    (finding,) = lint(path)
    assert finding.severity == severity
    assert line in str(finding)
    assert SECRET not in str(finding)
    assert [strict.severity for strict in lint(path, strict=True)] == ["error"]


def test_the_name_of_a_secret_that_only_a_loop_uses_is_no_secret(tmp_path: Path) -> None:
    assert lint(edited(tmp_path, lambda _, p: settings(p, "preflight").pop("secretAsEnv"))) == []


def test_a_retry_policy_of_a_loop_holds_for_the_tasks_in_it(tmp_path: Path) -> None:
    def move_out(spec: dict[str, Any], _: object) -> None:
        task = spec["components"]["comp-for-loop-1"]["dag"]["tasks"]["train"]
        spec["root"]["dag"]["tasks"]["for-loop-1"]["retryPolicy"] = task.pop("retryPolicy")

    assert lint(edited(tmp_path, move_out)) == []


def test_a_component_within_itself_does_not_keep_lint_busy(tmp_path: Path) -> None:
    def nest(spec: dict[str, Any], _: object) -> None:
        tasks = spec["components"]["comp-for-loop-1"]["dag"]["tasks"]
        tasks["again"] = {"componentRef": {"name": "comp-for-loop-1"}}

    assert lint(edited(tmp_path, nest)) == []


def importer(source: dict[str, Any], uri: dict[str, Any]) -> Edit:
    def edit(spec: dict[str, Any], _: object) -> None:
        spec["deploymentSpec"]["executors"]["exec-importer"] = {"importer": {"artifactUri": uri}}
        spec["components"]["comp-importer"] = {"executorLabel": "exec-importer"}
        spec["root"]["dag"]["tasks"]["importer"] = {
            "componentRef": {"name": "comp-importer"},
            "inputs": {"parameters": {"uri": source}},
        }

    return edit


@pytest.mark.parametrize(
    ("source", "uri", "expected"),
    [
        (
            {"taskOutputParameter": {"producerTask": "preflight", "outputParameterKey": "x"}},
            {"runtimeParameter": "uri"},
            ["error: task importer: imports an artifact whose URI another task gives: it fails on a cluster"],
        ),
        (
            {"runtimeValue": {"constant": "s3://a/b"}},
            {"constant": "s3://a/b"},
            ["warning: task importer: imports an artifact from a fixed URI"],
        ),
        ({"componentInputParameter": "work_uri"}, {"runtimeParameter": "uri"}, []),
    ],
    ids=["of another task", "fixed", "a parameter"],
)
def test_an_artifact_is_imported_only_from_a_parameter(
    tmp_path: Path, source: dict[str, Any], uri: dict[str, Any], expected: list[str]
) -> None:
    found = [str(finding) for finding in lint(edited(tmp_path, importer(source, uri)))]
    assert [line.partition(". ")[0] for line in found] == expected


def test_the_same_finding_of_several_tasks_is_one_line(tmp_path: Path) -> None:
    def untie(spec: dict[str, Any], _: object) -> None:
        for name in ("preflight", "train"):
            container(spec, name)["image"] = "x:1"

    (finding,) = lint(edited(tmp_path, untie))
    assert finding.where == "exec-preflight, exec-train"


def test_a_finding_holds_nothing_that_a_terminal_obeys(tmp_path: Path) -> None:
    path = edited(tmp_path, lambda s, _: s.update({"\x1b[31mred\nline": 1}))
    (finding,) = lint(path)
    assert str(finding).startswith("error: pipeline. [31mred line: unknown key")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "the run file is not YAML in {path}, line 1"),
        ("- 1", "not a run file"),
        ("1: 2", "a mapping of parameters"),
        (f"a: {SECRET}: b", "the run file is not YAML"),
    ],
)
def test_a_file_without_arguments_is_refused_and_not_repeated(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_parameters(path)
    assert message.format(path=path) in str(caught.value)
    assert SECRET not in str(caught.value)


def test_lint_needs_nothing_but_a_yaml_parser() -> None:
    heavy = {"kfp", "kfp_server_api", "google.protobuf", "pydantic", "boto3"}
    code = f"import sys, limbeck.lint; print(sorted({heavy!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
