"""Choices that Kubeflow resolves at compile time only, stamped into a compiled pipeline without its compiler.

Much of a run is chosen by parameters. Pod labels (so the Kueue queue), sizes of emptyDirs, retries and our
images are constants of the YAML; they are set here.
"""

import copy
import re
from collections.abc import Mapping
from dataclasses import replace

from limbeck.compiled import SHM, Compiled, Document
from limbeck.errors import ConfigError

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
# Kubeflow gives up when this time has passed since the first attempt began; its default of an hour is
# less than one attempt of a long stage, which then is never tried again.
RETRY_FOR = "1209600s"
# Kubernetes settings that a version's API server refuses a run for: it knows no such field.
# Source: kubernetes_platform/proto/kubernetes_executor_config.proto at the tags of kubeflow/pipelines.
KFP = {"2.15": ("securityContext",), "2.16": (), "2.17": ()}
QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?([kMGTPE]|[KMGTPE]i)?")


# What registries take for an image: host and port, path, tag, digest.
IMAGE = re.compile(
    r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d+)?/)?"
    r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
    r"(:\w[\w.-]{0,127})?(@sha256:[0-9a-f]{64})?",
    re.ASCII,
)


def stamp(
    compiled: Compiled,
    *,
    queue: str | None = None,
    images: Mapping[str, str] | None = None,
    shm: str | None = None,
    scratch: str | None = None,
    retries: int | None = None,
    kfp: str | None = None,
) -> Compiled:
    """Set what Kubeflow resolves at compile time only. What is not given stays.

    Args:
        compiled: The pipeline; it is not changed.
        queue: Kueue's LocalQueue for the pods of all tasks.
        images: References by the last part of an image's name, such as `tools`.
        shm: Size of /dev/shm, a Kubernetes quantity, for the tasks that mount it or ask for GPUs. It counts
            as memory of the task.
        scratch: Size limit of the emptyDirs on disk, a Kubernetes quantity.
        retries: How often each task is tried again; 0 for never.
        kfp: The oldest Kubeflow Pipelines that must take it, such as 2.15: what that refuses is taken out.

    Raises:
        ConfigError: when a value is malformed, or there is nothing that it could be set on.
    """
    result = replace(compiled, spec=copy.deepcopy(compiled.spec), platform=copy.deepcopy(compiled.platform))
    if queue is not None:
        _stamp_queue(result, queue)
    if images:
        _stamp_images(result, images)
    if shm is not None:
        _stamp_shm(result, shm)
    if scratch is not None:
        mounts = [mount for _, mount in _empty_dirs(result) if mount.get("medium") != "Memory"]
        _stamp_size(mounts, scratch, "--scratch", "No task mounts an emptyDir on disk")
    if retries is not None:
        _stamp_retries(result, retries)
    if kfp is not None:
        _stamp_kfp(result, kfp)
    return result


def _settings(compiled: Compiled, label: str) -> Document:
    """The Kubernetes settings of an executor, made where there are none."""
    node = compiled.platform
    for key in ("platforms", "kubernetes", "deploymentSpec", "executors", label):
        node = node.setdefault(key, {})
    return node


def _stamp_queue(compiled: Compiled, queue: str) -> None:
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", queue):
        raise ConfigError(
            "not the name of a LocalQueue",
            where="--queue",
            expected="lower case letters, digits and dashes, at most 63",
            got=repr(queue),
        )
    for label in compiled.containers:
        labels = _settings(compiled, label).setdefault("podMetadata", {}).setdefault("labels", {})
        labels[QUEUE_LABEL] = queue


def _image_name(image: str) -> str:
    return re.split(r"[:@]", image.rpartition("/")[2])[0]


def _stamp_images(compiled: Compiled, images: Mapping[str, str]) -> None:
    names = {_image_name(container["image"]) for container in compiled.containers.values()}
    for name, reference in images.items():
        if name not in names or not IMAGE.fullmatch(reference):
            raise ConfigError(
                "cannot set this image",
                where=f"--image {name}={reference}",
                expected=f"one of {', '.join(sorted(names))}, and a reference such as registry/team/tools:1 "
                "or registry/team/tools@sha256:DIGEST",
            )
    for container in compiled.containers.values():
        container["image"] = images.get(_image_name(container["image"]), container["image"])


def _empty_dirs(compiled: Compiled) -> list[tuple[str, Document]]:
    """Executor label and mount of every emptyDir."""
    return [
        (label, mount)
        for label, settings in compiled.kubernetes.items()
        for mount in settings.get("emptyDirMounts", [])
    ]


def _stamp_size(mounts: list[Document], size: str, option: str, nothing: str) -> None:
    if not QUANTITY.fullmatch(size):
        raise ConfigError("not a size", where=option, expected="a quantity such as 16Gi", got=repr(size))
    if not mounts:
        raise ConfigError("nothing to set", where=option, remedy=f"{nothing}: leave the option out")
    for mount in mounts:
        mount["sizeLimit"] = size


def _stamp_shm(compiled: Compiled, size: str) -> None:
    mounts = {label: mount for label, mount in _empty_dirs(compiled) if mount.get("mountPath") == SHM}
    for label, container in compiled.containers.items():
        if "accelerator" in container.get("resources", {}) and label not in mounts:
            mounts[label] = {"medium": "Memory", "mountPath": SHM, "volumeName": "shm"}
            _settings(compiled, label).setdefault("emptyDirMounts", []).append(mounts[label])
    _stamp_size(list(mounts.values()), size, "--shm", "No task mounts /dev/shm or asks for GPUs")


def _stamp_kfp(compiled: Compiled, version: str) -> None:
    if version not in KFP:
        raise ConfigError(
            "a Kubeflow Pipelines that is not supported",
            where="--kfp",
            expected=", ".join(KFP),
            got=repr(version),
        )
    for settings in compiled.kubernetes.values():
        for key in KFP[version]:
            settings.pop(key, None)


def _stamp_retries(compiled: Compiled, retries: int) -> None:
    if not 0 <= retries <= 100:
        raise ConfigError("out of range", where="--retries", expected="0 to 100", got=str(retries))
    for _, task, component in compiled.tasks():
        if component.get("executorLabel") not in compiled.containers:
            continue
        if retries == 0:
            task.pop("retryPolicy", None)
        else:
            backoff = {"backoffDuration": "60s", "backoffFactor": 2.0}
            task["retryPolicy"] = (
                backoff
                | task.get("retryPolicy", {})
                | {"maxRetryCount": retries, "backoffMaxDuration": RETRY_FOR}
            )
