"""What the API server of Kubeflow Pipelines 2.17 refuses, found offline and all at once.

It checks a file when it is uploaded, and file and arguments when a run is made of it.
Source: kubeflow/pipelines 2.17.0, backend/src/apiserver/{template/v2_template.go, common/utils.go,
server/util.go, validation/length.go} and backend/src/v2/compiler/{visitor.go, argocompiler/dag.go}.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from limbeck.compiled import Compiled, Document, by_kind
from limbeck.errors import one_line
from limbeck.shapes import PIPELINE_SPEC, PLATFORM_SPEC, misfits

SCHEMA_VERSION = "2.1.0"
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,127}")
MAX_LENGTHS = {"experiment": 128, "namespace": 63}
PARAMETER_TYPES: dict[str, tuple[type, ...]] = {
    "NUMBER_DOUBLE": (int, float),
    "NUMBER_INTEGER": (int, float),
    "STRING": (str,),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}
RECOMPILE = "Compile it again with kfp 2.17"


@dataclass(frozen=True)
class Finding:
    """One line of a check."""

    severity: Literal["error", "warning"]
    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        """The line, without what a terminal would obey."""
        return one_line(f"{self.severity}: {self.where}: {self.what}. {self.remedy}")


def _error(where: str, what: str, remedy: str = RECOMPILE) -> Finding:
    return Finding("error", where, what, remedy)


def read_documents(found: list[Any]) -> tuple[Compiled | None, list[Finding]]:
    """Sort the documents of a file and check keys and types.

    Args:
        found: The YAML documents.

    Returns:
        The pipeline, none if its shape is not known well enough to look further; and the findings.
    """
    specs, platforms = by_kind(found)
    findings = [
        _error("file", f"{len(group)} {called}", f"Keep {allowed}")
        for group, called, allowed in (
            (specs, "pipeline specs", "one document with `pipelineInfo` and `root`"),
            (platforms, "platform specs", "at most one document with `platforms`"),
        )
        if len(group) > 1 or (group is specs and not group)
    ]
    if len(found) > len(specs) + len(platforms):
        findings.append(_error("file", "a document that Kubeflow takes no notice of", "Remove it"))
    if findings:
        return None, findings
    platform = platforms[0] if platforms else {}
    if platform and found[0] is platform:
        findings.append(_error("file", "the platform spec comes first", "Put the pipeline spec first"))
    for document, shape, name in (
        (specs[0], PIPELINE_SPEC, "pipeline"),
        (platform, PLATFORM_SPEC, "platform"),
    ):
        findings += [_error(place, complaint) for place, complaint in misfits(document, shape, name)]
    if "root" not in specs[0]:
        findings.append(_error("pipeline", "no root"))
    return (None if findings else Compiled(specs[0], platform)), findings


def upload_refusals(compiled: Compiled) -> list[Finding]:
    """What is refused of a pipeline whose keys and types are right."""
    spec, findings = compiled.spec, []
    version, name = spec.get("schemaVersion", ""), spec.get("pipelineInfo", {}).get("name", "")
    if version != SCHEMA_VERSION:
        findings.append(_error("schemaVersion", f"expected {SCHEMA_VERSION}, got {version or 'nothing'}"))
    if not NAME.fullmatch(name):
        remedy = "Use at most 128 lower case letters, digits and dashes, no dash first"
        findings.append(_error("pipelineInfo.name", f"not a name: {name!r}", remedy))
    components = {"root": spec["root"]} | spec.get("components", {})
    for label, component in components.items():
        findings += _component_refusals(compiled, label, component)
    known = {component.get("executorLabel") for component in components.values()}
    for label in compiled.kubernetes:
        if label not in known:
            what = "settings of an executor that the pipeline has not; they are lost"
            findings.append(_error(f"platform {label}", what, "Name an executor of the pipeline"))
    return findings


def _component_refusals(compiled: Compiled, label: str, component: Document) -> Iterator[Finding]:
    spec = compiled.spec
    if "executorLabel" in component:
        executors = spec.get("deploymentSpec", {}).get("executors", {})
        executor = executors.get(component["executorLabel"], {})
        if not executor.get("container", {}).get("image") and "importer" not in executor:
            yield _error(label, f"no container or importer called {component['executorLabel']}")
        return
    tasks = component.get("dag", {}).get("tasks", {})
    if not any(_strategy(task) != "ALL_UPSTREAM_TASKS_COMPLETED" for task in tasks.values()):
        yield _error(label, "neither an executor nor tasks in it")
    for key, task in tasks.items():
        where = f"{label} task {key}"
        reference = task.get("componentRef", {}).get("name", "")
        if reference not in spec.get("components", {}):
            yield _error(where, f"no component called {reference!r}")
        if "artifactIterator" in task:
            yield _error(where, "loops over artifacts do not work", "Loop over a parameter")
        for producer in _producers(task):
            if producer not in tasks:
                yield _error(where, f"waits for task {producer!r}, which is not beside it")


def _strategy(task: Document) -> str:
    return str(task.get("triggerPolicy", {}).get("strategy", ""))


def _producers(task: Document) -> Iterator[str]:
    """The tasks that a task waits for or reads from."""
    yield from task.get("dependentTasks", [])
    for inputs in task.get("inputs", {}).values():
        for source in inputs.values():
            for kind in ("taskOutputArtifact", "taskOutputParameter", "taskFinalStatus"):
                if kind in source:
                    yield source[kind].get("producerTask", "")


def argument_refusals(compiled: Compiled, arguments: Mapping[str, Any]) -> list[Finding]:
    """What is refused of the arguments of a run.

    Args:
        compiled: The pipeline.
        arguments: Values by parameter.

    Returns:
        Errors for what is missing, unknown, of another type or not among the values allowed. A fraction
        for a whole number passes the API server and stops the first task; it is an error here.
    """
    findings, declared, required = [], compiled.parameters, compiled.required
    for name, parameter in declared.items():
        where = f"argument {name}"
        if name in arguments:
            if complaint := _complaint(parameter, arguments[name]):
                findings.append(_error(where, complaint, f"Give {_example(parameter)}"))
        elif name in required:
            findings.append(_error(where, "missing", f"Give {_example(parameter)}"))
    for name in arguments:
        if name not in declared:
            known = ", ".join(sorted(declared)) or "none"
            findings.append(_error(f"argument {name}", "unknown parameter", f"The pipeline takes: {known}"))
    return findings


def _complaint(parameter: Document, value: object) -> str:
    """Why a value does not fit, empty if it does. The value is not repeated: it may be secret."""
    kind = parameter.get("parameterType", "unspecified")
    if kind not in PARAMETER_TYPES:
        return f"a parameter of type {kind} cannot be given to a pipeline"
    is_bool = isinstance(value, bool)
    if not isinstance(value, PARAMETER_TYPES[kind]) or (is_bool and kind != "BOOLEAN"):
        return f"expected {kind}, got {type(value).__name__}"
    if kind == "NUMBER_INTEGER" and isinstance(value, float) and not value.is_integer():
        return "expected a whole number, got a fraction"
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return "it holds what JSON does not know, such as a date"
    if parameter.get("literals") and value not in parameter["literals"]:
        return f"not one of {parameter['literals']}"
    return ""


def _example(parameter: Document) -> str:
    examples = {"LIST": "a list in JSON", "STRUCT": "a mapping in JSON", "BOOLEAN": "true or false"}
    kind = parameter.get("parameterType", "")
    return examples.get(kind, "a string" if kind == "STRING" else "a number")


def run_refusals(*, experiment: str, namespace: str, name: str) -> list[Finding]:
    """What is refused of the names around a run."""
    findings = [_error("--name", "empty", "Name the run")] if not name.strip() else []
    for option, value in (("experiment", experiment), ("namespace", namespace)):
        if len(value) > MAX_LENGTHS[option]:
            findings.append(_error(f"--{option}", f"longer than {MAX_LENGTHS[option]}", "Shorten it"))
    return findings
