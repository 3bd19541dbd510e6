"""What a person sees of a run: each stage's start, progress and end, and the reason if it fails."""

import io
import math
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from limbeck.progress import PREFIX

# What Kubeflow's executor and runner print about a stage.
STARTED = re.compile(r'"outputFile": "(?P<place>.+)/executor_output\.json"')
ENDED = re.compile(r"Wrote executor output file to .+/executor_output\.json")
FAILED = re.compile(r"finished with status \S*FAILURE")
# What stages say themselves.
ERROR = re.compile(r"error (?P<exit_code>\d+): ")
COMPLETE = ": already complete"
PROGRESS = "s left"
QUIET_SECONDS = 10.0  # between progress lines of one stage where they cannot be rewritten


@dataclass
class RunningStage:
    """One stage as the screen sees it, told apart by the thread that passes its lines on."""

    name: str
    number: int
    started: float = field(default_factory=time.monotonic)
    was_complete: bool = False
    last_words: str = ""
    progress_shown: float = -math.inf


@dataclass(frozen=True)
class Failure:
    """Why the run ended."""

    exit_code: int
    message: str


class Screen(io.TextIOBase):
    """Stands in for stdout and stderr of the runner: shows some lines, and logs them all.

    Kubeflow's runner passes on the lines of stages that run side by side, each from its own thread.
    """

    def __init__(
        self, terminal: TextIO, log: TextIO, names: Mapping[str, str], on_failure: Callable[[], None]
    ) -> None:
        """Start the clock.

        Args:
            terminal: Where people look; the current progress line is rewritten if it is a tty.
            log: Gets every line.
            names: What tasks are called, from `task_names`.
            on_failure: Called once, after the first failure has been shown.
        """
        self.failure: Failure | None = None
        self._terminal, self._log, self._names, self._on_failure = terminal, log, names, on_failure
        self._lock = threading.RLock()
        self._unfinished: dict[int, str] = {}
        self._running: dict[int, RunningStage] = {}
        self._num_started = 0
        self._transient = False
        self._start = time.monotonic()

    def write(self, text: str) -> int:
        """Take text from any thread; act on whole lines."""
        with self._lock:
            thread = threading.get_ident()
            *lines, self._unfinished[thread] = (self._unfinished.get(thread, "") + text).split("\n")
            for line in lines:
                self._take(thread, line)
        return len(text)

    def _take(self, thread: int, line: str) -> None:
        stage = self._running.get(thread)
        self._log.write(f"{stage.name if stage else '':<20}| {line}\n")
        if self.failure:
            return  # the last line on the screen is the reason
        if match := STARTED.search(line):
            self._begin(thread, match["place"])
        elif ENDED.search(line) and stage:
            self._end(thread, stage)
        elif FAILED.search(line):
            self._fail(stage)
        elif line.lstrip().startswith(PREFIX):
            self._say(stage, line.lstrip().removeprefix(PREFIX))
        elif stage and line.strip():
            stage.last_words = line.strip()

    def _begin(self, thread: int, place: str) -> None:
        # place: ROOT/PIPELINE-TIMESTAMP/[LOOP-iteration-I/...]TASK
        name = next((self._names[key] for key in self._names if place.endswith("/" + key)), Path(place).name)
        self._num_started += 1
        stage = self._running[thread] = RunningStage(name, self._num_started)
        self._show(self._head(stage), transient=False)

    def _end(self, thread: int, stage: RunningStage) -> None:
        del self._running[thread]
        now = time.monotonic()
        minutes, seconds = divmod(int(now - self._start), 60)
        took = f"{now - stage.started:.0f} s{', already complete' if stage.was_complete else ''}"
        self._show(f"{self._head(stage)}: {took} ({minutes}:{seconds:02} since the start)", transient=False)

    def _say(self, stage: RunningStage | None, text: str) -> None:
        text = "".join(char if char.isprintable() else "?" for char in text)
        if match := ERROR.match(text):
            self._fail(stage, Failure(int(match["exit_code"]), text))
            return
        if stage and COMPLETE in text:
            stage.was_complete = True
        transient = text.endswith(PROGRESS)
        if stage and transient and not self._terminal.isatty():
            now = time.monotonic()
            if now - stage.progress_shown < QUIET_SECONDS:
                return
            stage.progress_shown = now
        self._show(f"        {text}", transient=transient)

    def _fail(self, stage: RunningStage | None, failure: Failure | None = None) -> None:
        if failure is None:
            name = f"stage `{stage.name}`" if stage else "a stage"
            words = stage.last_words if stage else ""
            why = f": {words}" if words else ""
            why += " (by the system, most often for want of memory)" if words == "Killed" else ""
            failure = Failure(
                1, f"error 1: {name} died{why}. Run the same command again: finished work is kept"
            )
        self.failure = failure
        self._show(f"{PREFIX}{failure.message}", transient=False)
        self._on_failure()

    def stop(self) -> Failure:
        """Show nothing any more, and give the reason: the failure, or that somebody stopped the run."""
        self.failure = self.failure or Failure(128 + signal.SIGTERM, "stopped")
        return self.failure

    def _head(self, stage: RunningStage) -> str:
        return f"[{stage.number:2}/{max(len(self._names), stage.number)}] {stage.name}"

    def _show(self, text: str, *, transient: bool) -> None:
        tty = self._terminal.isatty()
        if tty:
            width = shutil.get_terminal_size().columns
            text = text[: width - 1] if transient else text
            text = ("\r\x1b[K" if self._transient else "") + text
        self._transient = tty and transient
        self._terminal.write(text + ("" if self._transient else "\n"))
        self._terminal.flush()
