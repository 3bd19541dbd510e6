"""Our own rules for compiled pipelines; each looks at one thing and says what to do about it.

A warning works and costs later: an image that changes under its tag, a task that is never tried again. An
error fails on any cluster or gives a secret away.
"""

import re
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from limbeck.apiserver import Finding
from limbeck.compiled import PLACEHOLDER, SHM, Compiled, Document
from limbeck.credentials import USE_A_SECRET, looks_like_one, named_like_one
from limbeck.stamp import RETRY_FOR

DIGEST = re.compile(r".+@sha256:[0-9a-f]{64}")
PIP = re.compile(r"\bpip3? +install\b|\bensurepip\b")
SETS_URI = re.compile(r"^\s+\w+\.uri\s*=[^=]", re.MULTILINE)


def images(compiled: Compiled) -> Iterator[Finding]:
    """Images are named by digest; one that a parameter chooses cannot be judged."""
    for label, container in compiled.containers.items():
        if not DIGEST.fullmatch(container["image"]) and not PLACEHOLDER.fullmatch(container["image"]):
            what = f"image {container['image']} can change under its name"
            yield Finding("warning", label, what, "Name it by digest: `limbeck compile --image`")


def artifact_uris(compiled: Compiled) -> Iterator[Finding]:
    """Artifacts stay below the run's root: what lies elsewhere is passed as a manifest or a parameter."""
    executors = compiled.spec.get("deploymentSpec", {}).get("executors", {})
    for key, task, component in compiled.tasks():
        importer = executors.get(component.get("executorLabel"), {}).get("importer")
        if importer is None:
            continue
        sources = task.get("inputs", {}).get("parameters", {}).values()
        if any("taskOutputParameter" in source for source in sources):
            what = "imports an artifact whose URI another task gives: it fails on a cluster"
            yield Finding("error", f"task {key}", what, "Read the URI in the task itself")
        elif "constant" in importer.get("artifactUri", {}):
            what = "imports an artifact from a fixed URI"
            yield Finding("warning", f"task {key}", what, "Take the URI as a parameter")
    for label, container in compiled.containers.items():
        if SETS_URI.search("\n".join(container.get("command", []))):
            what = "sets an artifact's URI; outside the run's root the task fails at its end"
            yield Finding("warning", label, what, "Write to `.path`, and leave big data to a manifest")


def retries(compiled: Compiled) -> Iterator[Finding]:
    """Every task is tried again, also after more than an hour."""

    def seconds(policy: Document) -> float:
        text = str(policy.get("backoffMaxDuration", "0s")).removesuffix("s")
        return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else 0.0

    def walk(component: Document, inherited: Document) -> Iterator[Finding]:
        for key, task in component.get("dag", {}).get("tasks", {}).items():
            policy = task.get("retryPolicy", inherited)
            reference = task.get("componentRef", {}).get("name", "")
            inner = compiled.spec.get("components", {}).get(reference, {})
            if "dag" in inner and reference not in above:
                above.append(reference)
                yield from walk(inner, policy)
                above.pop()
            elif inner.get("executorLabel") in compiled.containers:
                if policy.get("maxRetryCount", 0) < 1:
                    what = "never tried again: one lost node ends the run"
                    yield Finding("warning", f"task {key}", what, "`limbeck compile --retries 3`")
                elif seconds(policy) < seconds({"backoffMaxDuration": RETRY_FOR}):
                    what = f"not tried again {policy.get('backoffMaxDuration', 'an hour')} after its start"
                    remedy = f"Set backoff_max_duration={RETRY_FOR!r}, or `limbeck compile --retries 3`"
                    yield Finding("warning", f"task {key}", what, remedy)

    above: list[str] = []  # a component within itself would never end
    yield from walk(compiled.spec["root"], {})


def secrets(compiled: Compiled) -> Iterator[Finding]:
    """No credential in parameters, environment, commands or anywhere else in the file."""
    names = _names_of_secrets(compiled)
    for name, parameter in compiled.parameters.items():
        if named_like_one(name) and name not in names and parameter.get("parameterType") == "STRING":
            what = "a parameter that asks for a secret: whoever sees the run reads it"
            yield Finding("error", f"parameter {name}", what, USE_A_SECRET)
    for label, container in compiled.containers.items():
        for variable in container.get("env", []):
            if named_like_one(variable.get("name", "")) and variable.get("value"):
                yield Finding(
                    "error", f"{label} env {variable['name']}", "a secret as constant", USE_A_SECRET
                )
    for document, place in ((compiled.spec, "pipeline"), (compiled.platform, "platform")):
        yield from _secret_values(document, place)


def _names_of_secrets(compiled: Compiled) -> set[str]:
    """Parameters that hold the name of a Kubernetes Secret, not a secret."""
    return {
        entry.get("secretNameParameter", {}).get("componentInputParameter", "").split("--")[-1]
        for settings in compiled.kubernetes.values()
        for kind in ("secretAsEnv", "secretAsVolume", "imagePullSecret")
        for entry in settings.get(kind, [])
    }


def secrets_in_arguments(compiled: Compiled, arguments: Mapping[str, Any]) -> Iterator[Finding]:
    """No credential in the arguments of a run either: they are stored and shown with it."""
    names = _names_of_secrets(compiled)
    for place, key, text in _strings(dict(arguments), "argument"):
        if looks_like_one(text) or (text and named_like_one(key) and key not in names):
            yield Finding("error", place, "looks like a secret", USE_A_SECRET)


def _secret_values(document: Document, place: str) -> Iterator[Finding]:
    for where, _, text in _strings(document, place):
        if looks_like_one(text):
            yield Finding("error", where, "looks like a secret", USE_A_SECRET)


def _strings(value: object, place: str) -> Iterator[tuple[str, str, str]]:
    """Place, key and text of every string within a value, however deep."""
    waiting: deque[tuple[object, str, str]] = deque([(value, place, "")])
    while waiting:
        inner, where, key = waiting.popleft()
        if isinstance(inner, str):
            yield where, key, inner
        elif isinstance(inner, dict):
            waiting.extend((part, f"{where}.{name}", str(name)) for name, part in inner.items())
        elif isinstance(inner, list):
            waiting.extend((part, f"{where}[{number}]", key) for number, part in enumerate(inner))


def pip(compiled: Compiled) -> Iterator[Finding]:
    """Nothing is installed at run time."""
    for label, container in compiled.containers.items():
        if PIP.search("\n".join([*container.get("command", []), *container.get("args", [])])):
            remedy = "Put it into the image, and compile with install_kfp_package=False"
            yield Finding("warning", label, "installs packages when it starts", remedy)


def preflight(compiled: Compiled) -> Iterator[Finding]:
    """Preflight looks at the world, so its result is never taken from the cache."""
    for key, task, _ in compiled.tasks():
        name = task.get("taskInfo", {}).get("name", key)
        if name.startswith("preflight") and task.get("cachingOptions", {}).get("enableCache"):
            what = "may be answered from the cache, without looking"
            yield Finding("warning", f"task {key}", what, "Set enable_caching=False")


def resources(compiled: Compiled) -> Iterator[Finding]:
    """Every task says what it needs."""
    for label, container in compiled.containers.items():
        said = " ".join(container.get("resources", {})).lower()
        missing = " and ".join(kind for kind in ("cpu", "memory") if kind not in said)
        if missing:
            what = f"no request or limit of {missing}: the node decides when it dies"
            yield Finding("warning", label, what, "Set requests and limits in the pipeline")


def shared_memory(compiled: Compiled) -> Iterator[Finding]:
    """Tasks with GPUs have a /dev/shm: a container's own is 64 MiB, and NCCL wants more."""
    for label, container in compiled.containers.items():
        mounts = compiled.kubernetes.get(label, {}).get("emptyDirMounts", [])
        if "accelerator" in container.get("resources", {}) and not any(
            mount.get("mountPath") == SHM and mount.get("medium") == "Memory" for mount in mounts
        ):
            what = "GPUs without shared memory of their own"
            yield Finding("warning", label, what, "`limbeck compile --shm 16Gi`")


RULES = (images, artifact_uris, retries, secrets, pip, preflight, resources, shared_memory)
