"""One component's body in a process of its own, as Kubeflow runs it: what a test can kill.

python -m tests.stage_process TASK FILE     FILE holds the arguments as JSON; {"path": P} is an artifact
"""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limbeck import local, tasks


@dataclass
class FileArtifact:
    """What Kubeflow hands to a component."""

    path: str
    metadata: dict[str, Any] = field(default_factory=dict)

    def log_metric(self, metric: str, value: float) -> None:
        self.metadata[metric] = value


def start(task: str, folder: Path, **arguments: Any) -> "subprocess.Popen[str]":
    """Start a task; its output comes by `communicate()`."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{task}.json"
    file.write_text(json.dumps(arguments))
    return subprocess.Popen(
        [sys.executable, "-m", "tests.stage_process", task, str(file)],
        cwd=Path(__file__).parents[1],
        env=local.environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(task: str, folder: Path, **arguments: Any) -> str:
    """Run a task to its end and give its output; a failure fails the test with it."""
    process = start(task, folder, **arguments)
    output, _ = process.communicate()
    assert process.returncode == 0, output[-5000:]
    return output


def run(task: str, arguments: dict[str, Any]) -> None:
    """Run a task here."""
    getattr(tasks, task)(**{key: _artifacts(value) for key, value in arguments.items()})


def _artifacts(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"path"}:
        return FileArtifact(value["path"])
    if isinstance(value, list):
        return [_artifacts(item) for item in value]
    return value


if __name__ == "__main__":
    name, path = sys.argv[1:]
    run(name, json.loads(Path(path).read_text()))
