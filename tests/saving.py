"""Training states that a test keeps, by step."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from limbeck.saver import Saver

OFTEN, NEVER = 1e-3, 1e9


@contextmanager
def keeping(folder: Path) -> Iterator[tuple[Saver, dict[int, Path]]]:
    """A saver that keeps as many states as it can, and where they lie."""
    kept: dict[int, Path] = {}

    def keep(step: int, state: Path) -> None:
        kept[step] = Path(shutil.copytree(state, folder / str(step)))

    with Saver("test", OFTEN, keep) as saver:
        yield saver, kept


def middle(kept: dict[int, Path]) -> tuple[int, Path]:
    """The step and the state that lie in the middle."""
    step = sorted(kept)[len(kept) // 2]
    return step, kept[step]


def no_saver() -> Saver:
    """A saver that is never due; it need not be entered."""
    return Saver("test", NEVER, lambda step, folder: None)
