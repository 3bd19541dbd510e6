"""The kill matrix, `make chaos`: every stage of the demo is killed in every way at every moment of its work.

One unbroken run of the cut demo comes first. For each cell of the matrix, what one stage made is taken away,
the pipeline runs again, and the stage is struck at a moment drawn from the seed. Passed is: the run ends well
by itself or when it is started a second time, what the stage made equals the unbroken run's, the model was
not asked again for more than 5% of the rows and one part, and after `limbeck gc` nothing is left over. A
matrix that was stopped goes on: cells that have passed in the same folder are not struck again.
"""

import argparse
import contextlib
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from limbeck import seaweed
from limbeck.errors import DataError
from limbeck.manifest import parse
from limbeck.storage import Store
from tests.chaos import cut_demo, outcome
from tests.chaos.blow import FRACTIONS, KINDS, MOMENTS, Blow, Kind, Moment, Plan
from tests.chaos.outcome import Made
from tests.fault_proxy import FaultProxy, fault_proxy
from tests.server_crash import kill_and_restart

TARGETS = {
    "prepare": "prompts",
    "generate": "teacher",
    "judge": "judge",
    "label": "labelled_teacher",
    "sft": "sft_selected",
    "reward": "reward",
    "ppo": "ppo_mixed",
    "evaluate": "ppo_mixed",
    "report": "report",
}
"""The name of the output whose stage is struck, by stage."""
TRAININGS = ("sft", "reward", "ppo")
IN_CHILD = (*TRAININGS, "generate", "judge", "evaluate")
MAX_RUNS = 2
MIN_PACE = 0.2
DOWN_SECONDS = 5.0
TIMEOUT_SECONDS = 900.0


@dataclass(frozen=True)
class Cell:
    """One line of the table."""

    stage: str
    moment: Moment
    kind: Kind
    place: str
    """How far the stage was when it was struck."""
    exit_codes: list[int]
    """Of each `limbeck run`."""
    seconds: float
    again: int
    """Rows or steps that were done, lost, and done again; without those that were in the engine."""
    total: int
    fault: str
    """Why it failed, or nothing."""


class Chaos:
    """A pipeline that can be run, and the door of its object store."""

    def __init__(self, seed: int, out: Path, store: Store, proxy: FaultProxy) -> None:
        """Run the pipeline once, unbroken, and remember what it made."""
        self._seed, self._out, self._store, self._proxy = seed, out, store, proxy
        self._servers: list[subprocess.Popen[bytes]] = []
        self._run_file = out / "run.yaml"
        cut_demo.write_run_file(seed, store, self._run_file)
        if code := self._run():
            sys.exit(f"the unbroken run ended with exit code {code}: see {out / 'run/run.log'}")
        self.unbroken = self._made()
        assert self.unbroken.keys() == TARGETS.keys(), f"not found: {TARGETS.keys() - self.unbroken.keys()}"

    def cell(self, stage: str, moment: Moment, kind: Kind, pace: float = 1.0) -> Cell:
        """Strike one stage once, let the run come to its end, and compare.

        A moment that never came, because the unbroken run shared its machine, is sought twice as early.
        """
        made = self.unbroken[stage]
        plan = self._plan(made, moment, kind, pace)
        blow = Blow(plan, self._crash_server)
        outcome.remove(self._store, made)
        self._proxy.pass_on = blow.pass_on
        exit_codes: list[int] = []
        logs = ""
        started = time.monotonic()
        while (not exit_codes or exit_codes[-1]) and len(exit_codes) < MAX_RUNS:
            exit_codes.append(self._run())
            logs += (self._out / "run" / "run.log").read_text(encoding="utf-8")
        seconds = time.monotonic() - started
        has_struck = blow.has_struck
        blow.end()
        done, total = _numbers(blow.place)
        found = re.search(r"(\d+)/(\d+) \w+ are there already, going on", logs)
        went_on = kind == "child" or len(exit_codes) > 1  # else nothing was lost
        again = max(0, done - int(found[1] if found else 0)) if went_on else 0
        fault = "never struck" if not has_struck else ""
        fault = fault or (f"exit codes {exit_codes}" if exit_codes[-1] else self._fault(made))
        if stage in ("generate", "judge", "evaluate") and again > 0.05 * total + cut_demo.ROWS_PER_PART:
            fault = fault or f"{again} of {total} rows were sampled again"
        if fault:
            name = f"{stage}-{moment}-{kind}.log".replace("%", "")
            (self._out / name).write_text(logs, encoding="utf-8")
        outcome.restore(self._store, made)
        if not has_struck and moment in FRACTIONS and pace > MIN_PACE:
            return self.cell(stage, moment, kind, pace / 2)
        return Cell(stage, moment, kind, blow.place, exit_codes, round(seconds, 1), again, total, fault)

    def end(self) -> None:
        """End the servers that were started in place of killed ones."""
        for server in self._servers:
            server.kill()
            server.wait()

    def _fault(self, unbroken: Made) -> str:
        """What is wrong with what there is at the end."""
        broken = outcome.read_made(self._store, unbroken.prefix)
        if different := outcome.difference(unbroken, broken):
            return different
        self._limbeck(
            "gc", cut_demo.WORK_URI, "--delete", "--older-than", "0", "--keep-states", "0", log="gc.log"
        )
        left = outcome.leftovers(self._store, cut_demo.WORK_URI)
        return f"{len(left)} objects are left over, such as {left[0]}" if left else ""

    def _plan(self, made: Made, moment: Moment, kind: Kind, pace: float) -> Plan:
        stage = made.manifests[0].stage
        rng = random.Random(f"{self._seed} {stage} {moment} {kind}")  # noqa: S311 - no secrets
        wall = max(manifest.wall_seconds for manifest in made.manifests)
        num_objects = sum(len(manifest.objects) for manifest in made.manifests)
        last = {"commit": num_objects, "checkpoint": 3, "manifest": len(made.manifests)}.get(moment, 1)
        return Plan(
            prefix=made.prefix.partition("://")[2] + "/",
            moment=moment,
            kind=kind,
            seconds=wall * pace * FRACTIONS.get(moment, 0.0) * rng.uniform(0.8, 1.2),
            nth=rng.randint(1, last),
            is_stored=rng.random() < 0.5,
        )

    def _made(self) -> dict[str, Made]:
        """What each stage to be struck has made."""
        prefixes: dict[str, str] = {}
        # By what Kubeflow handed on: the store also has what followed from broken trainings of before.
        for path in (self._out / "run" / "kfp").rglob("*"):
            with contextlib.suppress(DataError, IsADirectoryError):
                manifest = parse(path.read_bytes(), str(path))
                if TARGETS[manifest.stage] == manifest.name:
                    stage, key = manifest.uri.removeprefix(f"{cut_demo.WORK_URI}/").split("/")[:2]
                    prefixes[manifest.stage] = f"{cut_demo.WORK_URI}/{stage}/{key}"
        return {stage: outcome.read_made(self._store, prefix) for stage, prefix in prefixes.items()}

    def _run(self) -> int:
        return self._limbeck("run", str(self._run_file), "--out", str(self._out / "run"), log="screen.log")

    def _limbeck(self, *arguments: str, log: str) -> int:
        """One command, through the proxy; its words go to a file."""
        with (self._out / log).open("a", encoding="utf-8") as screen:
            return subprocess.run(
                [sys.executable, "-m", "limbeck.cli", *arguments],
                env=os.environ | {"AWS_ENDPOINT_URL": self._proxy.endpoint},
                stdin=subprocess.DEVNULL,
                stdout=screen,
                stderr=screen,
                timeout=TIMEOUT_SECONDS,
                check=False,
            ).returncode

    def _crash_server(self) -> None:
        self._servers.append(kill_and_restart(self._out / "store", DOWN_SECONDS))


def matrix(stages: list[str], moments: list[Moment], kinds: list[Kind]) -> Iterator[tuple[str, Moment, Kind]]:
    """The cells that there are."""
    for stage in stages:
        for moment in moments:
            for kind in kinds:
                no_state = moment == "checkpoint" and stage not in TRAININGS
                no_child = kind == "child" and stage not in IN_CHILD
                if not no_state and not no_child and (kind != "server" or moment == "50%"):
                    yield stage, moment, kind


def _numbers(place: str) -> tuple[int, int]:
    done, _, total = place.partition(" ")[0].partition("/")
    return int(done or 0), int(total or 0)


def _show(cell: Cell, number: int, count: int) -> None:
    codes = " ".join(map(str, cell.exit_codes))
    verdict = cell.fault or "passed"
    print(
        f"| {number}/{count} | {cell.stage} | {cell.moment} | {cell.kind} | {cell.place} "
        f"| {cell.again} | {codes} | {cell.seconds:.0f} | {verdict} |",
        flush=True,
    )


def main() -> int:
    """Go through the matrix; 0 if all passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/chaos"))
    parser.add_argument("--stages", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--moments", nargs="+", choices=MOMENTS, default=list(MOMENTS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    figures = asked.out / "cells.json"
    known = json.loads(figures.read_text(encoding="utf-8")) if figures.exists() else []
    cells = [cell for cell in (Cell(**values) for values in known) if not cell.fault]
    passed = {(cell.stage, cell.moment, cell.kind) for cell in cells}
    with seaweed.serve(asked.out / "store") as store, fault_proxy(str(store.endpoint)) as proxy:
        started = time.monotonic()
        chaos = Chaos(asked.seed, asked.out, store, proxy)
        print(f"the unbroken run took {time.monotonic() - started:.0f} s, models included\n")
        print("| | stage | moment | kind | struck at | done again | exit codes | seconds | |")
        print("|--:|:--|:--|:--|:--|--:|:--|--:|:--|", flush=True)
        wanted = [cell for cell in matrix(asked.stages, asked.moments, asked.kinds) if cell not in passed]
        # So a matrix that is stopped early is a sample of the whole.
        random.Random(asked.seed).shuffle(wanted)  # noqa: S311 - no secrets
        try:
            for number, (stage, moment, kind) in enumerate(wanted, start=1):
                cells.append(chaos.cell(stage, moment, kind))
                _show(cells[-1], number, len(wanted))
                report = json.dumps([asdict(cell) for cell in cells], indent=1)
                figures.write_text(report, encoding="utf-8")
        finally:
            chaos.end()
    failed = [cell for cell in cells if cell.fault]
    print(f"\n{len(cells) - len(failed)} of {len(cells)} passed; all figures are in {figures}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
