"""A compiled pipeline file: reading it, what it names, and writing it as Kubeflow's compiler does.

A file that is read and written again has the same bytes.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from limbeck.errors import ConfigError
from limbeck.shapes import PIPELINE_SPEC, PLATFORM_SPEC, misfits

Document = dict[str, Any]

# The files of a checkout (links into pipelines/) or of an installed package (copies).
SHIPPED = {path.stem: path for path in Path(__file__).with_name("pipelines").glob("*.yaml")}
MAX_BYTES = 32 << 20  # the API server's limit of an upload
KUBEFLOW_INNER_IMAGES = ("argostub/createpvc", "argostub/deletepvc")  # mark a task; nothing is pulled
SHM = "/dev/shm"  # noqa: S108 - where shared memory is
PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['(?:pipelinechannel--)?([^']+)'\]\}\}")


@dataclass(frozen=True)
class Compiled:
    """What one file holds."""

    spec: Document
    platform: Document
    """Empty where nothing is set for Kubernetes."""
    comments: str = ""
    """What Kubeflow writes above: name, description, parameters."""

    @property
    def containers(self) -> dict[str, Document]:
        """The containers of all executors, by executor label."""
        executors = self.spec.get("deploymentSpec", {}).get("executors", {})
        named = {label: executor.get("container", {}) for label, executor in executors.items()}
        return {
            label: container
            for label, container in named.items()
            if container.get("image") and container["image"] not in KUBEFLOW_INNER_IMAGES
        }

    @property
    def kubernetes(self) -> dict[str, Document]:
        """Settings for Kubernetes by executor label."""
        settings = self.platform.get("platforms", {}).get("kubernetes", {})
        return dict(settings.get("deploymentSpec", {}).get("executors", {}))

    @property
    def parameters(self) -> dict[str, Document]:
        """The parameters of the pipeline, as declared."""
        return dict(self.spec["root"].get("inputDefinitions", {}).get("parameters", {}))

    @property
    def required(self) -> list[str]:
        """The parameters that a run must give."""
        return [
            name
            for name, declared in self.parameters.items()
            if "defaultValue" not in declared and not declared.get("isOptional")
        ]

    @property
    def stages(self) -> list[str]:
        """The stages that run, as the pipeline tells its first task `preflight`.

        Raises:
            ConfigError: when it has no such task.
        """
        stages = self._said_to_preflight("stages")
        if not isinstance(stages, list):
            raise ConfigError(
                "the pipeline does not say which stages it runs",
                where=f"pipeline {self.spec['pipelineInfo']['name']}",
                expected="a first task `preflight` with a constant list `stages`",
                remedy="Give one of Limbeck's pipelines",
            )
        return [str(stage) for stage in stages]

    @property
    def gold_labels(self) -> bool:
        """Whether it gives gold answers to `label`, as it tells `preflight`."""
        return bool(self._said_to_preflight("gold_labels"))

    @property
    def open_ended(self) -> bool:
        """Whether it judges the student's answers too (`task.kind: open`), as it tells `preflight`."""
        return bool(self._said_to_preflight("open_ended"))

    def _said_to_preflight(self, name: str) -> Any:
        """A constant that the first task is given, or None."""
        said = self.preflight.get("inputs", {}).get("parameters", {}).get(name, {}).get("runtimeValue", {})
        return said.get("constant")

    @property
    def preflight(self) -> Document:
        """The first task, which may be within an exit handler; empty where there is none."""
        return next((task for key, task, _ in self.tasks() if key == "preflight"), {})

    def tasks(self) -> Iterator[tuple[str, Document, Document]]:
        """Every task of every level.

        Yields:
            The task's key, the task, and its component (empty where there is none of that name).
        """
        components = self.spec.get("components", {})
        for component in [self.spec["root"], *components.values()]:
            for key, task in component.get("dag", {}).get("tasks", {}).items():
                yield key, task, components.get(task.get("componentRef", {}).get("name"), {})


def find(pipeline: str) -> Path:
    """The file of a pipeline that is shipped, by its name, or a file.

    Raises:
        ConfigError: when there is none.
    """
    path = SHIPPED.get(pipeline, Path(pipeline))
    if not path.is_file():
        known = ", ".join(sorted(SHIPPED))
        raise ConfigError("no such pipeline", where=pipeline, expected=f"{known}, or a compiled file")
    return path


def read(path: Path) -> str:
    """The text of a compiled file.

    Raises:
        ConfigError: when it is missing, not text, or larger than the API server accepts.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("cannot read the compiled pipeline", where=str(path), got=str(error)) from error
    if len(content) > MAX_BYTES:
        raise ConfigError(
            "the file is larger than the API server accepts",
            where=str(path),
            expected=f"at most {MAX_BYTES} bytes",
            got=str(len(content)),
            remedy="Move code and data into images and the object store",
        )
    return text


def documents(text: str, where: str) -> list[Any]:
    """The YAML documents of a file, empty ones left out.

    Raises:
        ConfigError: when it is not YAML, names a key twice, or has aliases: Kubeflow writes none, and a
            few of them unfold to gigabytes.
    """
    remedy = "Give the YAML as Kubeflow's compiler wrote it"
    try:
        for root in yaml.compose_all(text, yaml.CSafeLoader):
            _refuse_aliases_and_doubles(root, where, remedy)
        return [document for document in yaml.load_all(text, yaml.CSafeLoader) if document is not None]
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError("not YAML", where=where, got=str(error), remedy=remedy) from error


def _refuse_aliases_and_doubles(root: yaml.Node | None, where: str, remedy: str) -> None:
    seen: set[int] = set()
    waiting = [root] if root else []
    while waiting:
        node = waiting.pop()
        place = f"{where}, line {node.start_mark.line + 1}"
        if id(node) in seen:
            raise ConfigError("a YAML alias", where=place, remedy=remedy)
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            if keys and keys.most_common(1)[0][1] > 1:
                double = keys.most_common(1)[0][0]
                raise ConfigError(f"key `{double}` twice in one mapping", where=place, remedy=remedy)
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def by_kind(found: list[Any]) -> tuple[list[Document], list[Document]]:
    """The pipeline specs and the platform specs among the documents of a file, told by their keys."""
    maps = [document for document in found if isinstance(document, dict)]
    specs = [document for document in maps if "pipelineInfo" in document or "root" in document]
    return specs, [document for document in maps if "platforms" in document]


def load(path: Path) -> Compiled:
    """Read a compiled pipeline whose shape is known afterwards.

    Raises:
        ConfigError: when there is no pipeline in it, or the first place that does not fit.
    """
    text = read(path)
    found = documents(text, str(path))
    specs, platforms = by_kind(found)
    if len(specs) != 1 or len(platforms) > 1 or found != specs + platforms or "root" not in specs[0]:
        raise ConfigError(
            "not a compiled pipeline",
            where=str(path),
            expected="a pipeline spec, and at most one document with `platforms` after it",
            remedy="See `limbeck lint`",
        )
    spec, platform = specs[0], platforms[0] if platforms else {}
    for shape, document in ((PIPELINE_SPEC, spec), (PLATFORM_SPEC, platform)):
        for place, complaint in misfits(document, shape, "pipeline" if document is spec else "platform"):
            raise ConfigError(complaint, where=f"{path}, {place}", remedy="See `limbeck lint`")
    return Compiled(spec, platform, header(text))


def header(text: str) -> str:
    """The comments at the head of a file."""
    return "".join(re.findall(r"\A(?:#.*\n)*", text))


def dump(compiled: Compiled) -> str:
    """The file's text, written as Kubeflow's compiler writes it."""
    found = [compiled.spec, *([compiled.platform] if compiled.platform else [])]
    return compiled.comments + str(yaml.dump_all(found, Dumper=yaml.SafeDumper, sort_keys=True))


def images(compiled: Compiled) -> list[str]:
    """All image references, sorted, each once; for an image that a parameter names, its default."""
    found = set()
    for container in compiled.containers.values():
        name = PLACEHOLDER.fullmatch(container["image"])
        default = compiled.parameters.get(name[1], {}).get("defaultValue") if name else None
        found.add(str(default or container["image"]))
    return sorted(found)


def mirrored(image: str, registry: str) -> str:
    """Where an image goes in another registry: the same path, digest and tag behind the registry's name.

    Args:
        image: A reference; without a registry of its own it is one of Docker Hub.
        registry: Host and, optional, port and a path.
    """
    host, slash, path = image.partition("/")
    has_registry = slash and ("." in host or ":" in host or host == "localhost")
    return f"{registry.rstrip('/')}/{path if has_registry else image}"
