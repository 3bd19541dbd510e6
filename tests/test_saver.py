"""Training states go to the store in the background, one at a time; SIGTERM saves, then ends the training."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from limbeck.errors import DataError, StoppedError, StorageError
from limbeck.saver import Saver
from tests.saving import NEVER, OFTEN

PATIENCE_SECONDS = 10.0


class Uploads:
    """What arrives, and a gate that it waits at."""

    def __init__(self, fails: dict[int, Exception] | None = None) -> None:
        self.stored: list[int] = []
        self.fails = fails or {}
        self.begun, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def __call__(self, step: int, folder: Path) -> None:
        self.begun.set()
        assert self.gate.wait(PATIENCE_SECONDS)
        assert (folder / "weights").read_text() == str(step)
        if step in self.fails:
            raise self.fails[step]
        self.stored.append(step)


def write(folder: Path, step: int) -> Path:
    state = folder / str(step)
    state.mkdir()
    (state / "weights").write_text(str(step))
    return state


def sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not ready():
        assert time.monotonic() < deadline, "it never came"


def lying(folder: Path) -> set[int]:
    """The states on the local disk."""
    return {int(path.name) for path in folder.iterdir()}


@contextmanager
def training(uploads: Uploads, seconds: float = OFTEN, step: int = 0) -> Iterator[Saver]:
    """A saver whose training has begun."""
    with Saver("sft", seconds, uploads) as saver:
        saver.begin(step)
        yield saver


def test_training_goes_on_during_an_upload_and_a_newer_state_takes_the_place_of_the_waiting_one(
    tmp_path: Path,
) -> None:
    uploads = Uploads()
    uploads.gate.clear()
    with pytest.raises(StoppedError, match="step 5 is stored"), training(uploads) as saver:  # noqa: PT012
        saver.save(1, write(tmp_path, 1))
        assert uploads.begun.wait(PATIENCE_SECONDS)
        for step in (2, 3, 4):
            until(saver.due)
            assert lying(tmp_path) == {1}, "the one that waited has made room"
            saver.save(step, write(tmp_path, step))
            assert lying(tmp_path) == {1, step}
        sigterm()
        until(saver.due)
        uploads.gate.set()
        saver.save(5, write(tmp_path, 5))
    assert uploads.stored == [1, 5]
    assert not lying(tmp_path)


def test_the_end_of_a_training_waits_for_the_upload_under_way_and_needs_no_other(tmp_path: Path) -> None:
    uploads = Uploads()
    uploads.gate.clear()
    opened = threading.Timer(0.2, uploads.gate.set)
    with training(uploads) as saver:
        saver.save(1, write(tmp_path, 1))
        assert uploads.begun.wait(PATIENCE_SECONDS)
        saver.save(2, write(tmp_path, 2))
        opened.start()
    assert uploads.stored == [1]
    assert not lying(tmp_path)


def test_a_state_that_has_made_room_is_not_asked_for_at_the_end(tmp_path: Path) -> None:
    uploads = Uploads()
    uploads.gate.clear()
    opened = threading.Timer(0.2, uploads.gate.set)
    with training(uploads) as saver:
        saver.save(1, write(tmp_path, 1))
        assert uploads.begun.wait(PATIENCE_SECONDS)
        saver.save(2, write(tmp_path, 2))
        until(saver.due)
        saver.save(3, write(tmp_path, 3))
        opened.start()
    assert uploads.stored == [1]
    assert not lying(tmp_path)


def test_a_training_that_fails_still_stores_its_last_state(tmp_path: Path) -> None:
    uploads = Uploads()
    uploads.gate.clear()
    opened = threading.Timer(0.2, uploads.gate.set)
    with pytest.raises(ZeroDivisionError), training(uploads) as saver:  # noqa: PT012
        saver.save(1, write(tmp_path, 1))
        opened.start()
        raise ZeroDivisionError
    assert uploads.stored == [1]


def test_an_upload_that_fails_is_said_and_the_training_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uploads = Uploads(fails={1: StorageError("the store is away")})
    with training(uploads) as saver:
        for step in (1, 2):
            until(saver.due)
            saver.save(step, write(tmp_path, step))
            until(lambda: not lying(tmp_path))
    assert uploads.stored == [2]
    said = re.sub(r"\d+\.\d s", "T s", capsys.readouterr().out)
    assert said.splitlines() == [
        "limbeck: sft: the state of step 1 is not stored: the store is away",
        "limbeck: sft: the state of step 2 is stored: written in T s, uploaded in T s",
    ]
    assert not lying(tmp_path)


def test_states_that_others_write_are_taken_while_nothing_is_under_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uploads = Uploads()
    uploads.gate.clear()
    with pytest.raises(StoppedError, match="step 2 is stored"), training(uploads) as saver:  # noqa: PT012
        assert saver.idle()
        saver.take(1, write(tmp_path, 1))
        assert not saver.idle()
        uploads.gate.set()
        until(saver.idle)
        assert not saver.asked
        sigterm()
        assert saver.asked
        saver.take(2, write(tmp_path, 2))
        saver.stop()
    assert "the state of step 1 is stored: uploaded in" in capsys.readouterr().out


@pytest.mark.parametrize("is_last", [False, True], ids=["at the next step", "after the last step"])
def test_an_upload_that_must_not_go_on_ends_the_training(tmp_path: Path, *, is_last: bool) -> None:
    uploads = Uploads(fails={1: DataError("it may not write any more")})
    with pytest.raises(DataError), training(uploads, NEVER) as saver:  # noqa: PT012
        saver.save(1, write(tmp_path, 1))
        assert uploads.begun.wait(PATIENCE_SECONDS)
        if not is_last:
            until(saver.due)


def test_the_time_to_the_next_state_counts_from_the_last_one(tmp_path: Path) -> None:
    with training(Uploads(), seconds=2) as saver:
        until(saver.due)
        saver.save(1, write(tmp_path, 1))
        assert not saver.due()


def test_sigterm_saves_at_the_next_step_and_a_state_that_is_not_stored_is_the_error(tmp_path: Path) -> None:
    uploads = Uploads(fails={4: StorageError("the store is away")})
    for step, error in ((3, StoppedError), (4, StorageError)):
        with pytest.raises(error), training(uploads, NEVER) as saver:  # noqa: PT012
            assert not saver.due()
            sigterm()
            assert saver.due()
            saver.save(step, write(tmp_path, step))
    assert uploads.stored == [3]


def test_sigterm_during_an_upload_lets_it_end_first(tmp_path: Path) -> None:
    uploads = Uploads()
    uploads.gate.clear()
    opened = threading.Timer(0.2, uploads.gate.set)
    with pytest.raises(StoppedError, match="the state of step 2 is stored"), training(uploads) as saver:  # noqa: PT012
        saver.save(1, write(tmp_path, 1))
        assert uploads.begun.wait(PATIENCE_SECONDS)
        sigterm()
        assert saver.due()
        opened.start()
        saver.save(2, write(tmp_path, 2))
    assert uploads.stored == [1, 2]


def test_sigterm_while_models_load_ends_there_and_then() -> None:
    with pytest.raises(StoppedError, match="nothing new to save"), Saver("sft", NEVER, Uploads()):  # noqa: PT012
        sigterm()
        pytest.fail("it went on")


@pytest.mark.parametrize(
    ("step", "stored", "says"),
    [
        (0, [], "no step was finished yet"),
        (5, [], "the state of step 5 is stored"),  # it went on from there
        (6, [6], "the state of step 6 is stored"),
    ],
)
@pytest.mark.parametrize("before", [False, True])
def test_sigterm_breaks_off_what_no_state_needs(
    tmp_path: Path, step: int, stored: list[int], says: str, *, before: bool
) -> None:
    uploads = Uploads()
    begun = 5 if step else 0
    with pytest.raises(StoppedError, match=says), training(uploads, NEVER, begun) as saver:  # noqa: PT012
        if before:
            sigterm()
        with saver.interruptible(step, lambda: saver.save(step, write(tmp_path, step))):
            if not before:
                sigterm()
            pytest.fail("it went on")
    assert uploads.stored == stored


def test_sigterm_saves_once_more_what_could_not_be_stored(tmp_path: Path) -> None:
    uploads = Uploads(fails={6: StorageError("the store is away")})
    with pytest.raises(StoppedError, match="the state of step 6 is stored"), training(uploads) as saver:  # noqa: PT012
        saver.save(6, write(tmp_path, 6))
        until(lambda: not lying(tmp_path))
        uploads.fails.clear()
        with saver.interruptible(6, lambda: saver.save(6, write(tmp_path, 6))):
            sigterm()
    assert uploads.stored == [6]


def test_sigterm_waits_for_a_state_that_is_on_its_way_and_does_not_save_it_again(tmp_path: Path) -> None:
    uploads = Uploads()
    uploads.gate.clear()
    opened = threading.Timer(0.2, uploads.gate.set)
    with pytest.raises(StoppedError, match="the state of step 6 is stored"), training(uploads) as saver:  # noqa: PT012
        saver.save(6, write(tmp_path, 6))
        assert uploads.begun.wait(PATIENCE_SECONDS)
        opened.start()
        with saver.interruptible(6, lambda: pytest.fail("it was saved again")):
            sigterm()
    assert uploads.stored == [6]


def test_sigterm_after_what_could_be_broken_off_waits_for_the_next_step_again(tmp_path: Path) -> None:
    uploads = Uploads()
    with pytest.raises(StoppedError, match="step 6 is stored"), training(uploads, NEVER) as saver:  # noqa: PT012
        with saver.interruptible(0, lambda: pytest.fail("nothing is new")):
            assert not saver.due()
        sigterm()
        assert saver.due()
        saver.save(6, write(tmp_path, 6))
    assert uploads.stored == [6]


def test_a_second_sigterm_breaks_off_nothing_that_the_first_has_begun(tmp_path: Path) -> None:
    uploads = Uploads()
    with pytest.raises(StoppedError, match="the state of step 6 is stored"), training(uploads) as saver:  # noqa: PT012

        def save() -> None:
            sigterm()
            saver.save(6, write(tmp_path, 6))

        with saver.interruptible(6, save):
            sigterm()
    assert uploads.stored == [6]


def test_sigterm_is_given_back_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with training(Uploads()):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
