"""What is simulated: a run of `generate` on preemptible GPUs, and the protocol's parameters."""

import math
from dataclasses import dataclass, field

from limbeck.config import Config
from limbeck.lease import TTL_SECONDS
from limbeck.shards import rows_per_part


@dataclass(frozen=True)
class Protocol:
    """What Limbeck decides; by default as it decides now."""

    rows_per_part: int = Config().generate.rows_per_part
    commit_seconds: float = Config().generate.commit_seconds
    lease_seconds: float = TTL_SECONDS
    num_shards: int = 1000
    """Tasks that share the rows. A run file's default is 1: this is chosen for each run."""


@dataclass(frozen=True)
class Scenario:
    """The run and the world around it. docs/simulation.md names the source of each figure."""

    protocol: Protocol = field(default_factory=Protocol)
    seed: int = 1
    num_rows: int = 100_000_000
    """Completions."""
    num_gpus: int = 1000
    """Each holds one engine. One that is taken away is replaced."""
    preemption_seconds: float = 2 * 3600.0
    """Mean time until a GPU is taken away, exponentially distributed; `math.inf` for never."""

    tokens_per_second: float = 3363.0
    """Of one engine that is full: a model of 7B parameters on an A100, published."""
    tokens_per_row: float = 300.0
    """Mean of a completion; an assumption (`max_tokens` is 512)."""
    in_flight: int = Config().engine.max_num_seqs
    """Sequences that an engine has at once."""
    row_bytes: int = 600
    """Of a completion in a Parquet part; an assumption."""

    samples_per_prompt: int = Config().generate.teacher.samples_per_prompt
    prompt_bytes: int = 120
    """Of a prompt in a Parquet part; an assumption."""
    prompts_per_part: int = 100_000
    """What `prepare` writes: `limbeck.rows.ROWS_PER_PART`."""
    prompt_seconds: float = 4e-6
    """To read and check one prompt. Each attempt reads all of them: `python -m simulate.measure`."""

    pod_seconds: float = 20.0
    """From the scheduler's choice to the stage's first request; an assumption, the image being there."""
    engine_seconds: float = 90.0
    """From weights on the disk to the first token: compilation and CUDA graphs, published logs."""
    model_bytes: int = 15_200_000_000
    """Weights of 7.6B parameters in two bytes each."""
    node_bytes_per_second: float = 413e6
    """A checkpoint's way down, checked: 2 GiB in 5.2 s, docs/storage.md."""
    model_gets_per_second: float = 5500.0
    """What one partition of S3 answers, published: all engines read the same prefix."""
    replace_seconds: float = 120.0
    """Until another GPU takes the place of one that was taken away; an assumption."""
    retry_seconds: float = 30.0
    """Kubeflow's pause before the first retry of a task; each further one is twice as long."""
    num_retries: int = 5
    """Kubeflow's retries of a task; one that is out of them waits for the run to be submitted again."""

    @property
    def rows_per_second(self) -> float:
        """Of one engine that is full."""
        return self.tokens_per_second / self.tokens_per_row

    @property
    def lag_seconds(self) -> float:
        """How long finished rows stay behind sampled tokens: sequences in flight are half done on average."""
        return self.in_flight / 2 / self.rows_per_second

    @property
    def ideal_seconds(self) -> float:
        """The whole run on GPUs that are always there and always full."""
        return self.num_rows / self.rows_per_second / self.num_gpus

    @property
    def rows_of_part(self) -> int:
        """Of a whole part, as `generate` deals its rows out: whole prompts."""
        rows = rows_per_part(self.num_rows, self.protocol.rows_per_part)
        return max(1, rows // self.samples_per_prompt) * self.samples_per_prompt

    @property
    def rows_of_shards(self) -> list[int]:
        """Shard k makes the parts k, k + N, ...; the last part may be smaller."""
        num_parts, count = math.ceil(self.num_rows / self.rows_of_part), self.protocol.num_shards
        sizes = [self.rows_of_part * len(range(index, num_parts, count)) for index in range(count)]
        sizes[(num_parts - 1) % count] -= self.rows_of_part * num_parts - self.num_rows
        return sizes

    @property
    def num_prompt_parts(self) -> int:
        """Objects that each attempt reads."""
        return math.ceil(self.num_rows / self.samples_per_prompt / self.prompts_per_part)

    @property
    def prompt_part_bytes(self) -> int:
        """Of one of them, the last one being like the others."""
        num_prompts = math.ceil(self.num_rows / self.samples_per_prompt)
        return min(num_prompts, self.prompts_per_part) * self.prompt_bytes

    @property
    def reading_seconds(self) -> float:
        """For all prompts, at each attempt."""
        return self.num_rows / self.samples_per_prompt * self.prompt_seconds
