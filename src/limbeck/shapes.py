"""The messages of a compiled pipeline: which keys Kubeflow 2.17 knows, and what may stand under them.

The API server reads both YAML documents strictly: one unknown key, and it refuses the whole file. A shape is
a type, a list of one shape, a mapping of known keys, or a mapping with `"*"` for names of the user's own.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Shape = type | tuple[type, ...] | list[Any] | dict[str, Any]

ANY = object
NUMBER = (int, float)
LABELS = {"*": str}

VALUE = {"constant": ANY, "constantValue": dict, "runtimeParameter": str}
INPUT_PARAMETER = {
    "taskOutputParameter": {"producerTask": str, "outputParameterKey": str},
    "runtimeValue": VALUE,
    "componentInputParameter": str,
    "taskFinalStatus": {"producerTask": str},
    "parameterExpressionSelector": str,
}
TASK = {
    "taskInfo": {"name": str},
    "inputs": {
        "parameters": {"*": INPUT_PARAMETER},
        "artifacts": {
            "*": {
                "taskOutputArtifact": {"producerTask": str, "outputArtifactKey": str},
                "componentInputArtifact": str,
            }
        },
    },
    "dependentTasks": [str],
    "cachingOptions": {"enableCache": bool, "cacheKey": str},
    "componentRef": {"name": str},
    "triggerPolicy": {"condition": str, "strategy": str},
    "artifactIterator": dict,
    "parameterIterator": {"items": {"raw": str, "inputParameter": str}, "itemInput": str},
    "retryPolicy": {
        "maxRetryCount": int,
        "backoffDuration": str,
        "backoffFactor": NUMBER,
        "backoffMaxDuration": str,
    },
    "iteratorPolicy": {"parallelismLimit": int},
}
COMPONENT = {
    "inputDefinitions": {
        "artifacts": {
            "*": {"artifactType": dict, "isArtifactList": bool, "isOptional": bool, "description": str}
        },
        "parameters": {
            "*": {
                "type": str,
                "parameterType": str,
                "defaultValue": ANY,
                "isOptional": bool,
                "description": str,
                "literals": [ANY],
            }
        },
    },
    "outputDefinitions": {"artifacts": {"*": dict}, "parameters": {"*": dict}},
    "dag": {"tasks": {"*": TASK}, "outputs": {"artifacts": {"*": dict}, "parameters": {"*": dict}}},
    "executorLabel": str,
    "singlePlatformSpecs": [dict],
    "taskConfigPassthroughs": [dict],
}
CONTAINER = {
    "image": str,
    "command": [str],
    "args": [str],
    "lifecycle": dict,
    "resources": {
        "cpuLimit": NUMBER,
        "memoryLimit": NUMBER,
        "cpuRequest": NUMBER,
        "memoryRequest": NUMBER,
        "resourceCpuLimit": str,
        "resourceMemoryLimit": str,
        "resourceCpuRequest": str,
        "resourceMemoryRequest": str,
        "accelerator": {"type": str, "count": (str, int), "resourceType": str, "resourceCount": str},
    },
    "env": [{"name": str, "value": str}],
}
IMPORTER = {
    "artifactUri": VALUE,
    "typeSchema": dict,
    "properties": dict,
    "customProperties": dict,
    "reimport": bool,
    "metadata": dict,
    "downloadToWorkspace": bool,
}
PIPELINE_SPEC = {
    "pipelineInfo": {"name": str, "displayName": str, "description": str},
    "deploymentSpec": {
        "executors": {
            "*": {"container": CONTAINER, "importer": IMPORTER, "resolver": dict, "customJob": dict}
        }
    },
    "sdkVersion": str,
    "schemaVersion": str,
    "components": {"*": COMPONENT},
    "root": COMPONENT,
    "defaultPipelineRoot": str,
}

KEYED = {"optional": bool, "secretName": str, "secretNameParameter": INPUT_PARAMETER}
KUBERNETES = {
    "secretAsVolume": [KEYED | {"mountPath": str}],
    "secretAsEnv": [KEYED | {"keyToEnv": [{"secretKey": str, "envVar": str}]}],
    "pvcMount": [dict],
    "nodeSelector": {"labels": LABELS, "nodeSelectorJson": INPUT_PARAMETER},
    "podMetadata": {"labels": LABELS, "annotations": LABELS},
    "imagePullSecret": [{"secretName": str, "secretNameParameter": INPUT_PARAMETER}],
    "imagePullPolicy": str,
    "configMapAsVolume": [dict],
    "configMapAsEnv": [dict],
    "activeDeadlineSeconds": (str, int),
    "fieldPathAsEnv": [{"name": str, "fieldPath": str}],
    "tolerations": [dict],
    "genericEphemeralVolume": [dict],
    "nodeAffinity": [dict],
    "podAffinity": [dict],
    "enabledSharedMemory": {"volumeName": str, "size": str},
    "emptyDirMounts": [{"volumeName": str, "mountPath": str, "medium": str, "sizeLimit": str}],
    "securityContext": {"runAsUser": (str, int), "runAsGroup": (str, int), "runAsNonRoot": bool},
}
PLATFORM_SPEC = {
    "platforms": {
        "kubernetes": {
            "deploymentSpec": {"executors": {"*": KUBERNETES}},
            "platform": str,
            "config": dict,
            "pipelineConfig": dict,
        }
    }
}


def misfits(value: object, shape: Shape, where: str) -> Iterator[tuple[str, str]]:
    """Compare a value with a shape.

    Args:
        value: What YAML gave.
        shape: What may stand there.
        where: The place of the value, with dots, for the answers.

    Yields:
        Place and complaint, for every place that does not fit.
    """
    if isinstance(shape, dict) and isinstance(value, Mapping):
        for key, inner in value.items():
            known = key if key in shape else "*"
            if known in shape:
                yield from misfits(inner, shape[known], f"{where}.{key}")
            else:
                yield f"{where}.{key}", "unknown key"
    elif isinstance(shape, list) and isinstance(value, list):
        for number, inner in enumerate(value):
            yield from misfits(inner, shape[0], f"{where}[{number}]")
    elif isinstance(shape, dict | list) or not _is(value, shape):
        yield where, f"expected {_called(shape)}, got {_called(type(value))}"


def _is(value: object, shape: type | tuple[type, ...]) -> bool:
    """`isinstance`, but a bool is no number."""
    return isinstance(value, shape) and not (isinstance(value, bool) and shape in (int, NUMBER, (str, int)))


def _called(shape: Shape) -> str:
    """The word of YAML for a shape or type."""
    if isinstance(shape, tuple):
        return " or ".join(_called(part) for part in shape)
    words = {
        str: "a string",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        dict: "a mapping",
        list: "a list",
        type(None): "nothing",
    }
    kind = shape if isinstance(shape, type) else type(shape)
    return words.get(kind, kind.__name__)
