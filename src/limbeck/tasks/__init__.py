"""What a component's body calls: one function a component, artifacts in, artifacts out.

An artifact is a small file that holds a manifest; the data stays in the object store. This is the
one place that chooses engines, so a stage never knows who runs it, and the only one where an error
becomes a line and an exit code.

A task calls one of these functions, so each is loaded when it is asked for, with what it needs.
"""

from types import ModuleType
from typing import TYPE_CHECKING, Any

from limbeck.loading import loading

if TYPE_CHECKING:
    from limbeck.tasks.ablation import compare, match, noise
    from limbeck.tasks.launching import cleanup
    from limbeck.tasks.stages import evaluate, generate, judge, label, merge, prepare, report
    from limbeck.tasks.trainings import ppo, reward, sft
    from limbeck.tasks.wiring import export, load, pick, preflight, shards

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
    "merge",
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


def __getattr__(name: str) -> Any:
    place: ModuleType
    with loading():
        match name:
            case "compare" | "match" | "noise":
                from limbeck.tasks import ablation as place
            case "cleanup":
                from limbeck.tasks import launching as place
            case "evaluate" | "generate" | "judge" | "label" | "merge" | "prepare" | "report":
                from limbeck.tasks import stages as place
            case "ppo" | "reward" | "sft":
                from limbeck.tasks import trainings as place
            case "export" | "load" | "pick" | "preflight" | "shards":
                from limbeck.tasks import wiring as place
            case _:
                raise AttributeError(f"no task {name}")
    return getattr(place, name)
