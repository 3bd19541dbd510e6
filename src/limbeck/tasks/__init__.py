"""What a component's body calls: one function a component, artifacts in, artifacts out.

An artifact is a small file that holds a manifest; the data stays in the object store. This is the
one place that chooses engines, so a stage never knows who runs it, and the only one where an error
becomes a line and an exit code.
"""

from limbeck.tasks.ablation import compare, match, noise
from limbeck.tasks.launching import cleanup
from limbeck.tasks.stages import evaluate, generate, judge, label, prepare, report
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
