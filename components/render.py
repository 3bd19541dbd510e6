"""Writes the README.md of each component and their index: `python -m components.render`.

Order, types and defaults come from the signature, the overview from the docstring, descriptions and image
from the compiled YAML (what other teams load), the rest from metadata.yaml and example_pipelines.py.
Compile first; the same sources give the same bytes.
"""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docstring_parser
import yaml

from components.metadata import Metadata, load_metadata
from limbeck.config import GPU_STAGES
from limbeck.tasks.artifacts import MADE_BY, Kind

ROOT = Path(__file__).parent.parent
MARK = "<!-- Written by `python -m components.render`: change its sources instead. -->"
# The order in which a run meets them.
ORDER = (
    *("preflight", "prepare", "shards", "generate", "judge", "label", "sft", "reward", "ppo", "evaluate"),
    *("pick", "report", "export", "load", "noise", "match", "compare", "cleanup"),
)
S3 = "S3-compatible"

INPUT_KINDS: dict[str, Kind] = {
    "prompts": "prompts",
    "heldout": "heldout",
    "gold": "gold",
    "completions": "completions",
    "student_completions": "completions",
    "judgements": "judgements",
    "labels": "labels",
    "given_labels": "labels",
    "labelled": "labelled",
    "teacher_labelled": "labelled",
    "student_labelled": "labelled",
    "checkpoint": "checkpoint",
    "checkpoints": "checkpoint",
    "sft_checkpoints": "checkpoint",
    "reward_model": "reward_model",
    "policies": "checkpoint",
    "policy": "checkpoint",
    "results": "results",
    "teacher_results": "results",
    "student_results": "results",
    "policy_results": "results",
    "run_report": "report",
    "sft_results": "results",
    "reward_variant_results": "results",
    "noise_variant_results": "results",
    "tuned_teacher_results": "results",
    "longer_sft_results": "results",
    "gold_results": "results",
    "gold_labels": "labels",
    "noisy_labels": "labels",
    "tuned_teacher": "checkpoint",
    "longer_sft": "checkpoint",
    "reward_variant_policies": "checkpoint",
    "noise_variant_policies": "checkpoint",
    "gold_policy": "checkpoint",
    "reward_variants": "reward_model",
    "noise_variants": "reward_model",
}
"""What the manifest of each input artifact must hold; a test gives each input another kind."""
PARAMETER_TYPES = {
    "STRING": "str",
    "NUMBER_INTEGER": "int",
    "BOOLEAN": "bool",
    "LIST": "list",
    "STRUCT": "dict",
}


@dataclass(frozen=True)
class Port:
    """One input or output: a line of a table."""

    name: str
    type: str
    description: str
    default: str = ""
    kind: Kind | None = None
    """For input artifacts."""


@dataclass(frozen=True)
class Component:
    """All that a README says."""

    name: str
    summary: str
    overview: str
    inputs: list[Port]
    outputs: list[Port]
    image: str
    example: str
    metadata: Metadata


def render_all(target: Path = ROOT) -> list[Path]:
    """Write every README.md below `components/`; give the files written.

    Args:
        target: The folder below which the files go, at the same places as in the repository.
    """
    components = [read_component(ROOT / "components" / name) for name in ORDER]
    pages = {f"components/{item.name}/README.md": page(item) for item in components}
    pages["components/README.md"] = index(components)
    for name, text in pages.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return [target / name for name in pages]


def read_component(folder: Path) -> Component:
    """Read a component's folder; no code of it is run."""
    module = ast.parse((folder / "component.py").read_text(encoding="utf-8"))
    function = next(node for node in module.body if isinstance(node, ast.FunctionDef))
    said = docstring_parser.parse(ast.get_docstring(function) or "")
    compiled = yaml.load((folder / "component.yaml").read_text(encoding="utf-8"), yaml.CSafeLoader)
    executor = compiled["deploymentSpec"]["executors"][f"exec-{folder.name}"]
    return Component(
        name=folder.name,
        summary=said.short_description or "",
        overview="\n\n".join(filter(None, [said.short_description, said.long_description])),
        inputs=list(_inputs(function, compiled["root"].get("inputDefinitions", {}))),
        outputs=list(_outputs(function, compiled["root"].get("outputDefinitions", {}), said)),
        image=executor["container"]["image"],
        example=(folder / "example_pipelines.py").read_text(encoding="utf-8").strip(),
        metadata=load_metadata(folder / "metadata.yaml"),
    )


def page(component: Component) -> str:
    """The README of one component."""
    name, metadata = component.name, component.metadata
    services = [f"{item.name} {item.version}" for item in metadata.dependencies.external_services]
    kubeflow = [f"{item.name} {item.version}" for item in metadata.dependencies.kubeflow]
    links = [f"[{title}]({address})" for title, address in metadata.links.items()]
    needs_store = any(item.startswith(S3) for item in services)
    variables = "`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, optional, `AWS_REGION`"
    return _text(
        MARK,
        f"# {name}",
        component.overview,
        "## Inputs",
        _table(
            ("name", "type", "default", "description"),
            [
                (f"`{port.name}`", f"`{port.type}`", port.default, _described(port))
                for port in component.inputs
            ],
        ),
        "## Outputs",
        _table(
            ("name", "type", "description"),
            [(f"`{port.name}`", f"`{port.type}`", port.description) for port in component.outputs],
        ),
        "## Use it",
        "By file or by URL (`load_component_from_url`); this needs nothing of Limbeck but the file:",
        f"```python\nfrom kfp.components import load_component_from_file\n\n"
        f'{name} = load_component_from_file("components/{name}/component.yaml")\n```',
        "From Python, with `limbeck[pipelines]` installed:",
        f"```python\n{component.example}\n```",
        "## Where it runs",
        _items(
            f"Image: `{component.image}`",
            "GPU: " + ("yes, ask for it as above" if name in GPU_STAGES else "none"),
            "Object store: " + (f"{variables} must be set, from a secret" if needs_store else "not used"),
        ),
        "## Metadata",
        _items(
            f"Stability: {metadata.stability}",
            f"Kubeflow: {', '.join(kubeflow)}",
            f"External services: {', '.join(services) or 'none'}",
            f"Tags: {', '.join(metadata.tags)}",
            f"Last verified: {metadata.lastVerified:%Y-%m-%d}",
            f"Links: {', '.join(links)}",
        ),
    )


def index(components: Iterable[Component]) -> str:
    """The table of all components."""
    rows = [
        (
            f"[`{item.name}`]({item.name}/README.md)",
            item.summary,
            ", ".join(f"`{port.name}`" for port in item.inputs if port.kind) or "none",
            ", ".join(f"`{port.name}`" for port in item.outputs if port.type[0].isupper()) or "values",
            "yes" if item.name in GPU_STAGES else "",
        )
        for item in components
    ]
    return _text(
        MARK,
        "# Components",
        "Each folder is one component: `component.py` (a shell around `limbeck.tasks`), `component.yaml`\n"
        "(compiled; all that another team needs), `metadata.yaml`, `example_pipelines.py` and a README.\n"
        "Artifacts are manifests of a few KB; the data stays in the object store. How to reuse a component:\n"
        "[docs/components.md](../docs/components.md).",
        _table(("component", "what it does", "input artifacts", "output artifacts", "GPU"), rows),
    )


def _inputs(function: ast.FunctionDef, definitions: dict[str, Any]) -> Iterator[Port]:
    """The inputs in the signature's order; outputs are parameters of the function too, and left out."""
    artifacts, parameters = definitions.get("artifacts", {}), definitions.get("parameters", {})
    arguments = function.args.args
    defaults = [None] * (len(arguments) - len(function.args.defaults)) + list(function.args.defaults)
    for argument, default in zip(arguments, defaults, strict=True):
        name, annotation = argument.arg, ast.unparse(argument.annotation or ast.Constant(None))
        optional = "required" if default is None else f"`{ast.unparse(default)}`"
        if name in artifacts:
            inner = annotation.removesuffix(" | None").removeprefix("Input[").removesuffix("]")
            yield Port(name, inner, artifacts[name]["description"], optional, INPUT_KINDS[name])
        elif name in parameters:
            yield Port(name, annotation, parameters[name]["description"], optional)


def _outputs(
    function: ast.FunctionDef, definitions: dict[str, Any], said: docstring_parser.Docstring
) -> Iterator[Port]:
    """The outputs in the docstring's order."""
    artifacts, parameters = definitions.get("artifacts", {}), definitions.get("parameters", {})
    if set(parameters) == {"Output"}:  # a plain return value; Kubeflow keeps no description of it
        returned = said.returns.description if said.returns else None
        yield Port("Output", ast.unparse(function.returns or ast.Constant(None)), returned or "")
        return
    found = {
        name: Port(name, item["artifactType"]["schemaTitle"].removeprefix("system."), item["description"])
        for name, item in artifacts.items()
    } | {
        name: Port(name, PARAMETER_TYPES[item["parameterType"]], item["description"])
        for name, item in parameters.items()
    }
    lines = (ast.get_docstring(function) or "").splitlines()
    order = {line.strip().partition(":")[0]: number for number, line in enumerate(lines)}
    yield from sorted(found.values(), key=lambda port: order[port.name])


def _described(port: Port) -> str:
    """A description, for an artifact with what makes it."""
    return f"{port.description} From {MADE_BY[port.kind]}." if port.kind else port.description


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def _items(*lines: str) -> str:
    return "\n".join(f"* {line}" for line in lines)


def _text(*paragraphs: str) -> str:
    return "\n\n".join(paragraphs) + "\n"


if __name__ == "__main__":
    for path in render_all():
        print(path.relative_to(ROOT))
