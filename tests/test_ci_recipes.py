"""The recipes of docs/ci.md do what they say: their commands are read there and run against a stub."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck.compiled import dump, load
from limbeck.stamp import stamp
from tests.kfp_stub import Fault, Stub, serve

PAGE = Path("docs/ci.md").read_text(encoding="utf-8")
TOKEN = "token-of-the-team"
RUN_FILE = {name: f"s3://bucket/{name}" for name in ("work_uri", "prompts", "teacher", "student")}
VARIABLES = {
    "GITHUB_RUN_ID": "41",
    "CI_PIPELINE_ID": "42",
    "CI_COMMIT_TAG": "v1.2.3",
    "REGISTRY": "registry.example.org",
} | {
    f"{name}_DIGEST": "sha256:" + name[0].lower().encode().hex() * 32
    for name in ("TOOLS", "GENERATE", "TRAIN")
}


def recipes() -> dict[str, list[str]]:
    """The commands of each job of the page."""
    found = {}
    for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL):
        content: dict[str, Any] = yaml.safe_load(block)
        for name, job in (content.get("jobs") or content).items():
            if "steps" in job:
                found[name] = [step["run"] for step in job["steps"] if "run" in step]
            elif "script" in job:
                found[name] = job["script"]
    return found


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serve() as running:
        running.token, running.states = TOKEN, ["SUCCEEDED"]
        yield running


@pytest.fixture
def job(stub: Stub, tmp_path: Path) -> dict[str, str]:
    """The variables of a CI job in a folder with the files that the page speaks of."""
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(RUN_FILE))
    images = {
        name: f"registry.example.org/{name}@sha256:{'a' * 64}" for name in ("tools", "generate", "train")
    }
    released = stamp(load(Path("pipelines/distill_minimal/pipeline.yaml")), images=images)
    (tmp_path / "pipeline.yaml").write_text(dump(released))
    (tmp_path / "token").write_text(TOKEN)
    return VARIABLES | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HOME": str(tmp_path),
        "PWD": str(tmp_path),
        "KF_PIPELINES_ENDPOINT": stub.url,
        "KFP_EXISTING_TOKEN": TOKEN,
        "KUBEFLOW_TOKEN": str(tmp_path / "token"),
    }


def run(command: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """One command without a shell: split like a shell does, then variables filled in."""
    words = [
        re.sub(r"\$(\w+)", lambda match: variables[match[1]], word)
        for word in shlex.split(command.removeprefix("exec "))
    ]
    return subprocess.run(
        words, env=variables, cwd=variables["PWD"], capture_output=True, text=True, check=False, timeout=120
    )


def run_all(name: str, variables: dict[str, str]) -> str:
    """The output of a job that ends well."""
    said = ""
    for command in recipes()[name]:
        if not command.startswith("pip install "):
            result = run(command, variables)
            assert result.returncode == 0, (command, result.stdout, result.stderr)
            said += result.stdout
    return said


def test_what_the_recipes_install_are_our_own_pins() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    commands = [command for job in recipes().values() for command in job]
    installed = {shlex.split(command)[2] for command in commands if command.startswith("pip install ")}
    assert installed == {"limbeck", "limbeck[pipelines]", "kfp==2.17.0"}
    assert "kfp==2.17.0" in project["optional-dependencies"]["pipelines"]


def test_no_recipe_has_a_token_among_its_arguments() -> None:
    for command in (command for job in recipes().values() for command in job):
        assert not re.search(r"existing-token|\$KFP_EXISTING_TOKEN|\$KUBEFLOW_TOKEN_VALUE|secrets\.", command)


def test_github_with_limbeck(stub: Stub, job: dict[str, str]) -> None:
    said = run_all("with-limbeck", job)
    assert "0 errors" in said
    assert "limbeck: run run-1: succeeded" in said
    (sent,) = stub.runs
    assert sent["display_name"] == "nightly 41"
    assert sent["service_account"] == "limbeck-runner"
    assert [experiment["namespace"] for experiment in stub.experiments] == ["limbeck"]
    assert sent["runtime_config"]["parameters"] == RUN_FILE
    settings = sent["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]
    queues = {
        entry["podMetadata"]["labels"]["kueue.x-k8s.io/queue-name"]
        for entry in settings["executors"].values()
    }
    assert queues == {"nightly"}


def test_github_with_kfp(stub: Stub, job: dict[str, str]) -> None:
    run_all("with-kfp", job)
    (sent,) = stub.runs
    assert sent["display_name"] == "nightly 41"
    assert [experiment["namespace"] for experiment in stub.experiments] == ["limbeck"]
    assert not sent.get("service_account")
    assert sent["runtime_config"]["parameters"] == {
        "work_uri": "s3://bucket/work",
        "prompts": "s3://bucket/prompts.jsonl",
        "teacher": "s3://bucket/teacher",
        "student": "s3://bucket/student",
    }


def test_gitlab_uploads_a_pipeline_and_then_versions(stub: Stub, job: dict[str, str]) -> None:
    run_all("first-upload", job)
    run_all("upload", job)
    assert [pipeline["display_name"] for pipeline in stub.pipelines] == ["limbeck-distill"]
    assert [version["display_name"] for version in stub.versions] == ["v1.2.3"]
    uploads = stub.asked("POST", "/pipelines/upload(_version)?")
    assert {request.body for request in uploads} == {Path(job["PWD"], "pipeline.yaml").read_bytes()}


def test_a_pipeline_that_kfp_uploads_belongs_to_no_namespace(stub: Stub, job: dict[str, str]) -> None:
    (command,) = (one for one in recipes()["first-upload"] if one.startswith("kfp "))
    assert run(command.replace("kfp ", "kfp --namespace limbeck ", 1), job).returncode == 0
    (upload,) = stub.asked("POST", "/pipelines/upload")
    assert "namespace" not in upload.query


def test_gitlab_nightly(stub: Stub, job: dict[str, str]) -> None:
    del job["KFP_EXISTING_TOKEN"]
    assert "limbeck: run run-1: succeeded" in run_all("nightly", job)
    (sent,) = stub.runs
    assert sent["service_account"] == "limbeck-runner"
    assert [experiment["namespace"] for experiment in stub.experiments] == ["limbeck"]
    assert sent["runtime_config"]["parameters"] == RUN_FILE | {"work_uri": "s3://bucket/nightly"}


def test_gitlab_release_is_strict_and_lists_what_a_mirror_needs(job: dict[str, str]) -> None:
    said = run_all("release", job)
    assert "pipeline.yaml: 0 errors, 0 warnings" in said
    digest = job["TOOLS_DIGEST"]
    assert (
        f"registry.example.org/limbeck/tools@{digest} mirror.example.org/limbeck/tools@{digest}"
        in said.splitlines()
    )


@pytest.mark.parametrize(
    ("name", "options", "failed", "blip"),
    [("with-kfp", "--watch", 0, 1), ("with-kfp", "--timeout 60", 0, 1), ("with-limbeck", "", 1, 0)],
    ids=["kfp --watch", "kfp --timeout", "limbeck submit"],
)
def test_runs_that_fail_and_servers_that_falter_end_as_the_page_says(
    stub: Stub, job: dict[str, str], name: str, options: str, failed: int, blip: int
) -> None:
    command = recipes()[name][-1].replace(" run create ", f" run create {options} ")
    if name == "with-limbeck":
        shutil.copy(Path(job["PWD"], "pipeline.yaml"), Path(job["PWD"], "nightly.yaml"))
    stub.states = ["FAILED"]
    assert run(command, job).returncode == failed
    stub.states, stub.faults = ["SUCCEEDED"], [Fault("GET", "/runs/run-2", status=503)]
    assert run(command, job).returncode == blip


@pytest.mark.parametrize(
    ("value", "sent"), [("student=7", 7), ("'student=\"7\"'", "7")], ids=["once", "twice"]
)
def test_kfp_takes_a_number_for_a_string_unless_it_is_quoted_twice(
    stub: Stub, job: dict[str, str], value: str, sent: object
) -> None:
    command = recipes()["with-kfp"][-1].replace("student=s3://bucket/student", value)
    assert run(command, job).returncode == 0
    assert stub.runs[0]["runtime_config"]["parameters"]["student"] == sent
