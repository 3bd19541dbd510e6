"""Runs a compiled component in its image as Kubeflow's launcher does, under the restricted pod standard.

The launcher puts input artifacts under /s3, calls the component's command with the executor input in the
place of `{{$}}`, and takes outputs from /s3. Source: kubeflow/pipelines 2.17, backend/src/v2,
driver/driver.go and component/launcher_v2.go.
"""

import json
import os
import subprocess
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from limbeck.manifest import Manifest, parse
from tests.images.machine import podman

COMPONENTS = Path(__file__).parents[2] / "components"
ROOT = "pipelines/root"  # bucket and prefix of the pipeline root
METADATA = "output_metadata.json"
UID = 65532
VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")


class Finished(NamedTuple):
    """How a container ended: exit status, what it said, and what it changed in its root file system."""

    status: int
    output: str
    changes: set[str]


@dataclass(frozen=True)
class Pod:
    """Where containers run.

    Attributes:
        network: Path of a network namespace.
        scratch: Folder that is mounted at /s3.
    """

    network: str
    scratch: Path

    def run(self, image: str, command: Sequence[str], *options: str) -> Finished:
        """Run a command to its end in a container that may write to /tmp and /s3 alone."""
        self.scratch.mkdir(exist_ok=True)
        for path in (self.scratch, *self.scratch.rglob("*")):
            os.chown(path, UID, UID)
        name = f"limbeck-{uuid.uuid4().hex[:12]}"
        run = ["podman", "run", "--name", name, "--pull", "never", "--network", f"ns:{self.network}"]
        run += ["--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp:rw,mode=1777"]
        run += ["--volume", f"{self.scratch}:/s3", "--memory", "6g", "--pids-limit", "1000"]
        run += ["--cap-drop", "all", "--security-opt", "no-new-privileges"]
        for variable in VARIABLES:
            run += ["--env", variable]  # without a value: podman takes it from its own environment
        result = subprocess.run(
            [*run, *options, image, *command],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        changes = set(podman("diff", name).splitlines())
        podman("rm", name)
        return Finished(result.returncode, result.stdout, changes)

    def run_component(
        self, name: str, image: str, parameters: Mapping[str, Any], inputs: Mapping[str, Manifest]
    ) -> Finished:
        """Run the very command of `components/NAME/component.yaml`.

        Args:
            name: The component.
            image: The image that stands for the one it names.
            parameters: Values of its parameters.
            inputs: Manifests that its input artifacts hold; a list of artifacts takes one.
        """
        spec = yaml.safe_load((COMPONENTS / name / "component.yaml").read_text(encoding="utf-8"))
        component = spec["components"][f"comp-{name}"]
        container = spec["deploymentSpec"]["executors"][f"exec-{name}"]["container"]
        for key, manifest in inputs.items():
            file = self.scratch / ROOT / name / "inputs" / key
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(manifest.to_json(), encoding="utf-8")
        (self.scratch / ROOT / name / "outputs").mkdir(parents=True, exist_ok=True)
        given = json.dumps(executor_input(name, component, parameters, inputs.keys()))
        command = [part.replace("{{$}}", given) for part in (*container["command"], *container["args"])]
        return self.run(image, command)

    def outputs(self, name: str) -> dict[str, Manifest]:
        """The manifests in a component's output artifacts, by output."""
        files = (self.scratch / ROOT / name / "outputs").iterdir()
        texts = {path.name: path.read_text(encoding="utf-8") for path in files if path.name != METADATA}
        return {output: parse(text, output) for output, text in texts.items()}

    def metadata(self, name: str) -> dict[str, Any]:
        """What the executor tells the launcher of a component's outputs."""
        text = (self.scratch / ROOT / name / "outputs" / METADATA).read_text(encoding="utf-8")
        told: dict[str, Any] = json.loads(text)
        return told


def executor_input(
    name: str, component: Mapping[str, Any], parameters: Mapping[str, Any], inputs: Iterable[str]
) -> dict[str, Any]:
    """What driver and launcher make of a task: defaults filled in, artifacts with their URIs.

    Args:
        name: The component.
        component: Its specification.
        parameters: The values that are given.
        inputs: Names of the input artifacts that are given.
    """
    declared = component["inputDefinitions"]
    known = declared["parameters"]
    unknown = parameters.keys() - known.keys()
    assert not unknown, f"`{name}` has no parameters {unknown}"
    defaults = {key: value["defaultValue"] for key, value in known.items() if "defaultValue" in value}

    def artifact(side: str, key: str, definition: Mapping[str, Any]) -> dict[str, Any]:
        uri = f"s3://{ROOT}/{name}/{side}/{key}"
        return {"artifacts": [{"name": key, "uri": uri, "type": definition["artifactType"], "metadata": {}}]}

    outputs = component["outputDefinitions"]
    return {
        "inputs": {
            "parameterValues": defaults | dict(parameters),
            "artifacts": {key: artifact("inputs", key, declared["artifacts"][key]) for key in inputs},
        },
        "outputs": {
            "artifacts": {
                key: artifact("outputs", key, definition)
                for key, definition in outputs.get("artifacts", {}).items()
            },
            "parameters": {
                key: {"outputFile": f"/tmp/kfp/outputs/{key}"} for key in outputs.get("parameters", {})
            },
            "outputFile": f"/s3/{ROOT}/{name}/outputs/{METADATA}",
        },
    }
