"""The compiled components, to be wired into pipelines of your own: `from limbeck.components import generate`.

Each name is loaded from the YAML in this package when it is first asked for; only then is Kubeflow
imported. The same files can be loaded without this package: see docs/components.md.
"""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.errors import ConfigError

if TYPE_CHECKING:
    from kfp.dsl.base_component import BaseComponent

__all__ = [
    "cleanup",
    "compare",
    "evaluate",
    "export",
    "generate",
    "judge",
    "label",
    "load",
    "match",
    "noise",
    "pick",
    "ppo",
    "preflight",
    "prepare",
    "report",
    "reward",
    "sft",
    "shards",
]

cleanup: "BaseComponent"
compare: "BaseComponent"
evaluate: "BaseComponent"
export: "BaseComponent"
generate: "BaseComponent"
judge: "BaseComponent"
label: "BaseComponent"
load: "BaseComponent"
match: "BaseComponent"
noise: "BaseComponent"
pick: "BaseComponent"
ppo: "BaseComponent"
preflight: "BaseComponent"
prepare: "BaseComponent"
report: "BaseComponent"
reward: "BaseComponent"
sft: "BaseComponent"
shards: "BaseComponent"


def __getattr__(name: str) -> "BaseComponent":
    """Load a component.

    Raises:
        ConfigError: when Kubeflow's SDK is not installed.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _load(name)


def __dir__() -> list[str]:
    return __all__


@cache
def _load(name: str) -> "BaseComponent":
    try:
        from kfp import components  # noqa: PLC0415 - the rest of the package runs without it
    except ModuleNotFoundError as error:
        raise ConfigError(
            "components need Kubeflow's SDK",
            where=f"limbeck.components.{name}",
            expected="kfp",
            got=f"no module {error.name}",
            remedy="pip install 'limbeck[pipelines]'",
        ) from error
    return components.load_component_from_file(str(Path(__file__).with_name(f"{name}.yaml")))
