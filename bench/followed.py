"""When the tasks of a local run began, worked and ended, from the lines of its screen as they come."""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

BEGIN = re.compile(r"\[ *\d+/\d+\] (?P<task>[^:]+)$")
END = re.compile(r"\[ *\d+/\d+\] (?P<task>[^:]+): \d+ s")
WORK = re.compile(r" +(?P<task>[a-z][^:]*): (?P<done>\d+)/\d+ \w+(, (?P<rate>[\d,.]+)/s)?")


@dataclass
class Task:
    """Times on the monotonic clock, in seconds."""

    name: str
    begun: float
    """A Python, or a fork, starts."""
    ended: float = 0.0
    worked: list[float] = field(default_factory=list)
    """When its work began, and when each of its lines of progress came."""

    @property
    def work_seconds(self) -> float:
        """From the beginning of its work to its last line of progress; 0 when it told of none."""
        return self.worked[-1] - self.worked[0] if self.worked else 0.0


def follow(lines: Iterable[str]) -> list[Task]:
    """All tasks of a run, in the order in which they ended."""
    # What happened last, and the tasks at work.
    last, running, ended = time.monotonic(), dict[str, Task](), list[Task]()
    for line in lines:
        now = time.monotonic()
        if begun := BEGIN.match(line):
            # Its process has started since the last event, unless other tasks were at work.
            running[begun["task"]] = Task(begun["task"], now if running else last)
        elif done := END.match(line):
            task = running.pop(done["task"])
            task.ended = now
            ended.append(task)
        elif work := WORK.match(line):
            if found := running.get(re.sub(r"[()_]", " ", work["task"]).strip()):
                rate = float((work["rate"] or "0").replace(",", ""))
                # The first line comes up to two seconds after the work began: the rate tells when that was.
                began = now - int(work["done"]) / rate if rate and not found.worked else now
                found.worked += [began, now] if not found.worked else [now]
            continue
        last = now
    return ended


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds in which at least one of these spans of time lies."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total
