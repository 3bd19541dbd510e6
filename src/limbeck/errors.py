"""Every error Limbeck raises on purpose, with the exit code its process ends with.

    LimbeckError      1
    ├── ConfigError   2   a setting is missing, unknown or out of range
    ├── DataError     3   a data set, row, checkpoint or manifest is not what it should be
    ├── StorageError  4   the object store cannot be reached, refuses, or lost something
    ├── EngineError   5   vLLM, DeepSpeed or the trainer failed
    ├── GateError     6   a quality gate stopped the run on purpose
    ├── ClusterError  7   the API server of Kubeflow Pipelines cannot be reached, or refuses
    ├── CanceledError 8   a run on a cluster was cancelled
    ├── LeaseError    9   another attempt of the same stage is at work, or was faster
    ├── StoppedError 10   SIGTERM came; what is done is kept
    ├── EndpointError 11  the server of a black-box teacher cannot be reached, or refuses
    └── TimeLimitError 124  a run on a cluster did not end in the time that was given

A message is one line: what, where, expected, got, and what to do about it.
"""


def one_line(text: str) -> str:
    """A text on one line, with nothing in it that steers a terminal: parts may come from anyone."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(printable.split())


class LimbeckError(Exception):
    """Root of the tree. Carries the parts of its one-line message."""

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        got: str | None = None,
        remedy: str | None = None,
    ) -> None:
        """Build the message.

        Args:
            what: What went wrong, without a full stop.
            where: The place: a URI, file and row, or a config path such as `ppo.kl_coef`.
            expected: What would have been right.
            got: What was there instead.
            remedy: What the reader should do now.
        """
        message = what
        if where:
            message += f" in {where}"
        if expected:
            message += f": expected {expected}"
        if got:
            message += f"{',' if expected else ':'} got {got}"
        if remedy:
            message += f". {remedy}"
        super().__init__(one_line(message))


class ConfigError(LimbeckError):
    """A setting is missing, unknown or out of range."""

    exit_code = 2


class DataError(LimbeckError):
    """A data set, row, checkpoint or manifest is not what it should be."""

    exit_code = 3


class StorageError(LimbeckError):
    """The object store cannot be reached, refuses, or lost something."""

    exit_code = 4


class EngineError(LimbeckError):
    """vLLM, DeepSpeed or the trainer failed."""

    exit_code = 5


class GateError(LimbeckError):
    """A quality gate stopped the run on purpose."""

    exit_code = 6


class ClusterError(LimbeckError):
    """The API server of Kubeflow Pipelines cannot be reached, or refuses."""

    exit_code = 7


class CanceledError(LimbeckError):
    """A run was cancelled."""

    exit_code = 8


class LeaseError(LimbeckError):
    """Another attempt of the same stage is at work, or was faster."""

    exit_code = 9


class StoppedError(LimbeckError):
    """SIGTERM has ended a stage; the next attempt goes on with what it has stored."""

    exit_code = 10


class EndpointError(LimbeckError):
    """The server of a black-box teacher cannot be reached, or refuses."""

    exit_code = 11


class TimeLimitError(LimbeckError):
    """A run did not end in the time that was given."""

    exit_code = 124  # as of the command `timeout`
