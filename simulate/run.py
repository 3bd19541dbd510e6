"""One run of `generate`, event by event: GPUs come and go, tasks wait for leases, rows are committed.

Each GPU is a process of SimPy that takes shards from a queue. A killed attempt leaves its lease behind, as
`generate` does also after SIGTERM, and its shard comes back into the queue after Kubeflow's pause.
"""

import math
import random
from collections import defaultdict
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import simpy

from simulate import requests
from simulate.requests import Requests, Traffic
from simulate.scenario import Scenario
from simulate.shelf import Shelf, first_row_at

Phase = Literal["start", "download", "lease", "sampling", "away", "idle"]
"""What a GPU's time goes into. `start`: pod, prompts, engine; `download`: the model; `idle`: no task is left,
or all that are left pause before a retry."""
Steps = Generator[simpy.Event, object, None]
WATCH_SECONDS = 1.0
"""How often who waits for a lease looks at it."""
CLOCK_SECONDS = 1.5
"""A lease's age by the store's clock is told up to two seconds too low: it is taken over that much later."""


@dataclass
class Shard:
    """One task of `generate`, over all its attempts."""

    shelf: Shelf
    lease_until: float = 0.0
    """When another attempt may take the lease over."""
    is_new: bool = True
    failures: int = 0
    """Since the run was submitted."""


@dataclass
class Outcome:
    """What came of a run."""

    scenario: Scenario
    seconds: float = 0.0
    """From the first task to the last shard's manifest; `merge` comes after it."""
    spent: defaultdict[Phase, float] = field(default_factory=lambda: defaultdict(float))
    """GPU seconds by phase."""
    traffic: Traffic = field(default_factory=Traffic)
    num_preempted: int = 0
    """Attempts that were killed."""
    num_attempts: int = 0
    lost_rows: int = 0
    """Rows that were finished, not stored, and sampled again."""
    lost_tokens: float = 0.0
    """Tokens of rows that were not finished when they were lost."""
    lease_seconds: list[float] = field(default_factory=list)
    """How long each second or later attempt waited for the lease."""
    num_renewals: int = 0
    """Requests by which leases were renewed."""
    num_exhausted: int = 0
    """Times that a task was out of retries."""

    @property
    def throughput(self) -> float:
        """Against the ideal."""
        return self.scenario.ideal_seconds / self.seconds

    @property
    def lost_rows_share(self) -> float:
        """Tokens of finished rows that were lost, against those of all rows: what committing can save."""
        return self.lost_rows / self.scenario.num_rows

    @property
    def wasted_share(self) -> float:
        """All tokens that were sampled in vain, against those of all rows."""
        tokens = self.lost_rows * self.scenario.tokens_per_row + self.lost_tokens
        return tokens / (self.scenario.num_rows * self.scenario.tokens_per_row)

    def share(self, phase: Phase) -> float:
        """A phase's part of all GPU seconds."""
        return self.spent[phase] / (self.scenario.num_gpus * self.seconds)


def simulate(scenario: Scenario, lives: Sequence[float] | None = None) -> Outcome:
    """Run to the last manifest; the same arguments give the same outcome.

    Args:
        scenario: The run and its world.
        lives: Seconds that the first GPUs last, instead of what is drawn; later ones last for ever.
    """
    return _Run(scenario, lives).outcome()


class _Run:
    """What the processes share."""

    def __init__(self, scenario: Scenario, lives: Sequence[float] | None) -> None:
        self._scenario, self._protocol = scenario, scenario.protocol
        self._lives = None if lives is None else iter(lives)
        self._env = simpy.Environment()
        self._queue: simpy.Store = simpy.Store(self._env)
        self._finished = self._env.event()
        self._model_free_at = 0.0
        self._outcome = Outcome(scenario)
        self._shelves = [Shelf(num_rows, scenario.rows_of_part) for num_rows in scenario.rows_of_shards]
        for shelf in self._shelves:
            self._queue.put(Shard(shelf))
        self._num_open = len(self._shelves)
        self._num_parts = self._num_loose = self._num_leases = 0

    def outcome(self) -> Outcome:
        """Start all GPUs and wait for the last shard."""
        for number in range(self._scenario.num_gpus):
            rng = random.Random(f"{self._scenario.seed} {number}")  # noqa: S311 - no secrets
            self._env.process(self._gpu(rng))
        self._env.run(until=self._finished)
        made = self._outcome
        made.seconds = self._env.now
        # What GPUs are in the middle of when the last shard ends: they wait for work, or are away.
        made.spent["idle"] += self._scenario.num_gpus * made.seconds - sum(made.spent.values())
        return made

    def _gpu(self, rng: random.Random) -> Steps:
        """One place for a GPU: it works until it is taken away, and is replaced."""
        while True:
            work = self._env.process(self._work())
            yield work | self._env.timeout(self._life(rng))
            work.interrupt()  # it works for ever
            yield from self._spend("away", self._scenario.replace_seconds)

    def _life(self, rng: random.Random) -> float:
        """Seconds until the next GPU is taken away."""
        if self._lives is not None:
            return next(self._lives, math.inf)
        mean = self._scenario.preemption_seconds
        return mean if math.isinf(mean) else rng.expovariate(1 / mean)

    def _work(self) -> Steps:
        """Take shards until the GPU is taken away."""
        while True:
            asked = self._queue.get()
            try:
                yield from self._during("idle", asked)
            except simpy.Interrupt:
                if asked.triggered:
                    self._queue.put(asked.value)
                asked.cancel()
                return
            shard = asked.value
            assert isinstance(shard, Shard)  # noqa: S101 - SimPy's queues have no types
            try:
                yield from self._attempt(shard)
            except simpy.Interrupt:
                self._env.process(self._retry(shard))
                return
            self._num_open -= 1
            if not self._num_open:
                if len(self._shelves) > 1:
                    self._ask(requests.merge(len(self._shelves), self._of_shards(), self._all_objects()))
                self._finished.succeed()

    def _retry(self, shard: Shard) -> Steps:
        """Kubeflow starts the task again; or people the run, when the task is out of retries."""
        self._outcome.num_preempted += 1
        pause = self._scenario.retry_seconds * 2**shard.failures
        shard.failures += 1
        if shard.failures > self._scenario.num_retries:
            self._outcome.num_exhausted += 1
            shard.failures, pause = 0, self._scenario.retry_seconds
        yield self._env.timeout(pause)
        yield self._queue.put(shard)

    def _attempt(self, shard: Shard) -> Steps:
        """`limbeck.stages.generate.run`, for one shard."""
        scenario, shelf = self._scenario, shard.shelf
        self._outcome.num_attempts += 1
        yield from self._spend("start", scenario.pod_seconds)
        self._ask(requests.find(len(self._shelves)))
        yield from self._take_lease(shard)
        self._ask(requests.others(len(self._shelves), self._of_shards()))
        taken = self._env.now
        try:
            self._outcome.traffic.record(self._env.now, requests.REQUIRE, "prompts")
            self._outcome.traffic.record(
                self._env.now,
                requests.download(scenario.prompt_part_bytes),
                "prompts",
                scenario.reading_seconds,
                scenario.num_prompt_parts,
            )
            yield from self._spend("start", scenario.reading_seconds)
            self._ask(requests.listing(self._all_objects()))
            num_earlier = shelf.num_parts
            for item in shelf.loose:
                self._ask(requests.download((item.end - item.first) * scenario.row_bytes))
            looked = self._env.now
            if not shelf.is_whole:
                yield from self._load_model()
                yield from self._sample(shelf, looked)
            # Parts of earlier attempts are read for their tokens.
            part = requests.download(shelf.rows_per_part * scenario.row_bytes)
            self._outcome.traffic.record(self._env.now, part, times=num_earlier)
            self._ask(requests.RENEW)
            self._outcome.num_renewals += 1
            self._ask(requests.COMMIT)
        except simpy.Interrupt:
            shard.lease_until = self._renew(taken)
            raise
        self._renew(taken)

    def _all_objects(self) -> int:
        """What lies below the stage's prefix, where all shards write; leases and manifests too."""
        num_manifests = len(self._shelves) - self._num_open
        return self._num_parts + self._num_loose + self._num_leases + num_manifests

    def _of_shards(self) -> int:
        """What of it lies in the folders of shards."""
        return 0 if len(self._shelves) == 1 else self._all_objects() - self._num_parts

    def _take_lease(self, shard: Shard) -> Steps:
        """Wait until the last attempt's lease is over."""
        if shard.is_new:
            shard.is_new = False
            self._num_leases += 1
            self._ask(requests.TAKE)
            return
        wait = max(0.0, shard.lease_until - self._env.now)
        for number in range(1 + int(wait / WATCH_SECONDS)):
            self._outcome.traffic.record(self._env.now + number * WATCH_SECONDS, requests.LOOK)
        self._outcome.lease_seconds.append(wait)
        yield from self._spend("lease", wait)
        self._ask(requests.TAKE_OVER)

    def _renew(self, taken: float) -> float:
        """Count the renewals of an attempt that ends now; gives when its lease is over."""
        every = self._protocol.lease_seconds / 3
        num_renewals = int((self._env.now - taken) / every)
        self._outcome.num_renewals += num_renewals
        for number in range(1, num_renewals + 1):
            self._outcome.traffic.record(taken + number * every, requests.RENEW)
        return taken + num_renewals * every + self._protocol.lease_seconds + CLOCK_SECONDS

    def _load_model(self) -> Steps:
        """Download the weights, beside all others who do, and start the engine.

        The store serves one after another; a node is not faster than its own way down.
        """
        scenario = self._scenario
        asked = requests.model(scenario.model_bytes)
        served = max(self._env.now, self._model_free_at)
        seconds = asked.get / scenario.model_gets_per_second
        self._outcome.traffic.record(served, asked, "model", seconds)
        self._model_free_at = served + seconds
        alone = scenario.model_bytes / scenario.node_bytes_per_second
        yield from self._spend("download", max(alone, self._model_free_at - self._env.now))
        yield from self._spend("start", scenario.engine_seconds)

    def _sample(self, shelf: Shelf, looked: float) -> Steps:
        """Sample the missing rows, until they are there or the GPU is taken away.

        Args:
            shelf: The shard's.
            looked: When the attempt looked up what is there: its clock of commits starts then.
        """
        scenario, before, began = self._scenario, shelf.finished, self._env.now
        first = began + scenario.lag_seconds  # from here on rows finish
        try:
            missing = (shelf.num_rows - before) / scenario.rows_per_second
            yield from self._spend("sampling", scenario.lag_seconds + missing)
            self._commit(shelf, looked, first, shelf.num_rows)
        except simpy.Interrupt:
            seconds = self._env.now - began
            finished = max(0, int((self._env.now - first) * scenario.rows_per_second + 1e-9))
            self._commit(shelf, looked, first, before + finished)
            self._outcome.lost_rows += shelf.lose(before + finished)
            self._outcome.lost_tokens += min(seconds, scenario.lag_seconds) * scenario.tokens_per_second
            raise

    def _commit(self, shelf: Shelf, saved: float, first: float, finished: int) -> None:
        """Store what an attempt stores until so many rows are finished: whole parts, and other rows in time.

        Nobody waits for it, so that it is worked out when the attempt is over.

        Args:
            shelf: The shard's.
            saved: When rows of no whole part were last stored.
            first: When this attempt's rows began to finish.
            finished: How many rows of the shard are, in the end.
        """
        rate, before, every = self._scenario.rows_per_second, shelf.finished, self._protocol.commit_seconds
        while not shelf.is_whole:
            late = before + first_row_at(saved + every - first, rate)
            upto = min(max(late, shelf.stored + 1), shelf.boundary)
            if upto > finished:
                return
            now = first + (upto - before) / rate
            if upto == shelf.boundary:
                num_rows, num_deleted = shelf.close()
                self._num_parts += 1
                self._num_loose -= num_deleted
                if num_deleted:
                    self._outcome.traffic.record(now, requests.DELETE)
            else:
                num_rows, saved = shelf.save(upto), now
                self._num_loose += 1
            self._outcome.traffic.record(now, requests.upload(num_rows * self._scenario.row_bytes))

    def _spend(self, phase: Phase, seconds: float) -> Steps:
        yield from self._during(phase, self._env.timeout(seconds))

    def _during(self, phase: Phase, event: simpy.Event) -> Steps:
        """Wait for an event, or until the GPU is taken away, and write down what for."""
        began = self._env.now
        try:
            yield event
        except simpy.Interrupt:
            self._outcome.spent[phase] += self._env.now - began
            raise
        # Not `finally`: what is still waiting at the end of the run is closed when Python clears up.
        self._outcome.spent[phase] += self._env.now - began

    def _ask(self, asked: Requests) -> None:
        self._outcome.traffic.record(self._env.now, asked)
