"""Kubeflow's artifacts on one side, manifests on the other; and how a task ends when something is wrong."""

import atexit
import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol, TypeVar, cast, get_args

from limbeck.errors import ConfigError, DataError, LimbeckError
from limbeck.manifest import Manifest, parse
from limbeck.progress import say
from limbeck.storage import DEADLINE, DEADLINE_SECONDS, NO_ROOM, disk_full

Settings = dict[str, Any]
"""What Kubeflow hands over as `config`, unchecked."""
Choice = TypeVar("Choice", bound=str)
Kind = Literal[
    "prompts",
    "heldout",
    "gold",
    "completions",
    "judgements",
    "labels",
    "labelled",
    "checkpoint",
    "reward_model",
    "results",
    "report",
]
# Which output of which component holds a kind: what a message names as the remedy.
MADE_BY: dict[Kind, str] = {
    "prompts": "`prompts` of prepare",
    "heldout": "`heldout` of prepare",
    "gold": "`gold` of prepare",
    "completions": "`completions` of generate",
    "judgements": "`judgements` of judge",
    "labels": "`labels` of label",
    "labelled": "`labelled` of label",
    "checkpoint": "`checkpoint` of sft, `policy` of ppo, or `loaded` of load",
    "reward_model": "`reward_model` of reward, or `loaded` of load",
    "results": "`results` of evaluate",
    "report": "`run_report` of report",
}


class Artifact(Protocol):
    """What Kubeflow hands to a component for each input and output."""

    path: str
    metadata: dict[str, Any]


class MetricsArtifact(Artifact, Protocol):
    """An artifact that the Kubeflow UI shows as a table of figures."""

    def log_metric(self, metric: str, value: float) -> None:
        """Add one figure."""


def read(artifact: Artifact, kind: Kind) -> Manifest:
    """The manifest that an input artifact holds.

    Raises:
        DataError: when it holds none, or one of another kind.
    """
    return read_any(artifact, [kind])


def read_any(artifact: Artifact, kinds: Sequence[Kind]) -> Manifest:
    """The manifest that an input artifact holds, of one of several kinds.

    Raises:
        DataError: when it holds none, or one of another kind.
    """
    wanted, made_by = " or ".join(kinds), " or ".join(MADE_BY[kind] for kind in kinds)
    path = Path(artifact.path)
    where = path.name
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            "an input artifact holds no manifest",
            where=f"input {where}",
            expected=f"the manifest of {wanted}",
            got=type(error).__name__,
            remedy=f"Wire it to {made_by}",
        ) from error
    manifest = parse(text, f"input {where}")
    if manifest.kind not in kinds:
        raise DataError(
            "an input artifact of the wrong kind",
            where=f"input {where}",
            expected=f"a manifest of {wanted}",
            got=f"{manifest.kind} from stage {manifest.stage}",
            remedy=f"Wire it to {made_by}",
        )
    return manifest


def read_all(artifacts: Sequence[Artifact] | None, kind: Kind) -> tuple[Manifest, ...]:
    """The manifests of a list of artifacts, one a shard or model."""
    return tuple(read(artifact, kind) for artifact in artifacts or ())


def write(manifest: Manifest, artifact: Artifact, metrics: MetricsArtifact | None = None) -> None:
    """Put a manifest into an output artifact, and its figures where the Kubeflow UI shows them."""
    Path(artifact.path).parent.mkdir(parents=True, exist_ok=True)
    Path(artifact.path).write_text(manifest.to_json(), encoding="utf-8")
    artifact.metadata.update(uri=manifest.uri, rows=manifest.num_rows, name=manifest.name)
    for name, value in manifest.metrics.items():
        if metrics is not None:
            metrics.log_metric(name.replace("/", "_"), value)


def one_of(value: str, choices: type[Choice] | Any, where: str) -> Any:
    """Check that a parameter is one of a Literal's words.

    Raises:
        ConfigError: when it is not.
    """
    words = get_args(choices)
    if value not in words:
        raise ConfigError(
            "unknown value",
            where=where,
            expected=" or ".join(words),
            got=repr(value)[:80],
            remedy="Correct it",
        )
    return cast(Any, value)


@contextmanager
def task(name: str) -> Iterator[None]:
    """Name the task in the store's access log, and turn an error into one line and its exit code.

    A store that does not answer at the task's start is in an outage: whoever started the run has used it.
    """
    atexit.register(gc.freeze)  # else Python ends with a look for garbage in all modules: 0.1 to 0.2 s
    variables = {
        "AWS_SDK_UA_APP_ID": f"limbeck-{name}",
        DEADLINE: os.environ.get(DEADLINE, f"{DEADLINE_SECONDS:g}"),
    }
    before = {key: os.environ.pop(key) for key in variables if key in os.environ}
    os.environ.update(variables)
    try:
        yield
    except LimbeckError as error:
        _end(error)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        _end(disk_full(error.filename or f"task {name}"))
    finally:
        for key in variables:
            del os.environ[key]
        os.environ.update(before)


def _end(error: LimbeckError) -> NoReturn:
    say(f"error {error.exit_code}: {error}")
    # Not sys.exit: engines leave threads and exit handlers behind that can hang or crash.
    os._exit(error.exit_code)
